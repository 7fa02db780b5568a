package doctest

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// block is a fenced block of a document.
type block struct {
	line  int // of the fence, from 1
	lang  string
	words []string // behind the language
	file  string   // of file=
	lines []string
}

func (b *block) text() string         { return strings.Join(b.lines, "\n") + "\n" }
func (b *block) has(word string) bool { return slices.Contains(b.words, word) }

// command is one command of a console block and what it prints.
type command struct {
	line   string
	prints []string
}

func (b *block) commands() (list []command) {
	for _, l := range b.lines {
		switch {
		case strings.HasPrefix(l, "$ "):
			list = append(list, command{line: l[2:]})
		case len(list) > 0:
			c := &list[len(list)-1]
			c.prints = append(c.prints, l)
		}
	}
	return list
}

func hasCommands(blocks []*block) bool {
	return slices.ContainsFunc(blocks, func(b *block) bool { return b.lang == "console" })
}

// parse reads the fenced blocks of a document.
func parse(t *testing.T, file string) (blocks []*block) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var b *block
	for i, l := range strings.Split(string(text), "\n") {
		info, fence := strings.CutPrefix(l, "```")
		switch {
		case fence && b == nil:
			b = &block{line: i + 1}
			if words := strings.Fields(info); len(words) > 0 {
				b.lang, b.words = words[0], words[1:]
			}
			for _, w := range b.words {
				if name, ok := strings.CutPrefix(w, "file="); ok {
					b.file = name
				}
			}
		case fence:
			blocks = append(blocks, b)
			b = nil
		case b != nil:
			b.lines = append(b.lines, l)
		}
	}
	require.Nil(t, b, "%s: a block does not end", file)
	return blocks
}
