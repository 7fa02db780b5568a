package yamlfile

// Nearest returns the name that somebody who wrote word probably meant, or "": at most one slip (a letter missing, too
// many, wrong, or two swapped) in short words, two in longer ones. It is exported since names of functions, kinds and commands are
// mistyped as well.
func Nearest(word string, names []string) string {
	if len(word) > 64 {
		return ""
	}
	best, bestDist := "", 3
	for _, name := range names {
		limit := 2
		if min(len(word), len(name)) < 5 {
			limit = 1
		}
		if d := distance(word, name); d <= limit && d < bestDist {
			best, bestDist = name, d
		}
	}
	return best
}

// distance counts the slips between two words (optimal string alignment).
func distance(a, b string) int {
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}
