//go:build !cgo

package confine

func cCalls() []int { return nil }
