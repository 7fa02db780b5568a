package secrets

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func write(t *testing.T, dir, name, text string, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	require.NoError(t, os.Chmod(file, mode))
	return file
}

func value(t *testing.T, s *Set, name string) string {
	t.Helper()
	v, err := s.Get(name)
	require.NoError(t, err)
	return v
}

func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{
		"token": write(t, dir, "token", "s3cret-token\n", 0o600),
		"crlf":  write(t, dir, "crlf", "windows\r\n", 0o640),
		"key":   write(t, dir, "key", "line 1\nline 2\n\n", 0o400),
	}
	s := Open(files, "")
	require.Equal(t, "s3cret-token", value(t, s, "token"))
	require.Equal(t, "windows", value(t, s, "crlf"))
	require.Equal(t, "line 1\nline 2\n", value(t, s, "key"))
	require.Empty(t, s.Problems())
	_, err := s.Get("other")
	require.ErrorIs(t, err, ErrNone)

	require.Equal(t, "*** ***", s.Mask("s3cret-token windows"))
	write(t, dir, "token", "another-token", 0o600)
	delete(files, "crlf")
	require.Equal(t, "s3cret-token", value(t, s, "token"), "until it is told to")
	s.Load(files)
	require.Equal(t, "another-token", value(t, s, "token"))
	_, err = s.Get("crlf")
	require.ErrorIs(t, err, ErrNone)
	require.Equal(t, "*** *** ***", s.Mask("s3cret-token windows another-token"), "the earlier ones, too")
}

func TestFilesThatAreNoSecrets(t *testing.T) {
	dir := t.TempDir()
	for name, want := range map[string]string{
		write(t, dir, "open", "s3cret-open", 0o604):                       "everybody on this machine may read or change",
		write(t, dir, "big", strings.Repeat("s3cret", 1000), 0o600):       "has 6000 bytes, at most 4096 are allowed",
		write(t, dir, "bigger", strings.Repeat("x", MaxValue+1), 0o600):   "more than 4096 bytes",
		write(t, dir, "empty", "\n", 0o600):                               "is empty",
		write(t, dir, "binary", "s3cret\xff", 0o600):                      "is not text",
		write(t, dir, "nul", "s3cret\x00", 0o600):                         "is not text",
		filepath.Join(dir, "absent"):                                      "there is no file",
		dir:                                                               "is not a file",
		write(t, dir, "exact", strings.Repeat("x", MaxValue)+"\n", 0o600): "",
	} {
		s := Open(map[string]string{"x": name}, "")
		_, err := s.Get("x")
		if want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, `secret "x": `)
		require.NotContains(t, err.Error(), "s3cret")
		require.Len(t, s.Problems(), 1)
	}
}

func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "token", "from systemd", 0o400)
	write(t, dir, "other", "other value", 0o400)
	mine := write(t, t.TempDir(), "token", "from the file", 0o400)
	s := Open(map[string]string{"token": mine}, dir)
	require.Equal(t, "from the file", value(t, s, "token"))
	require.Equal(t, "other value", value(t, s, "other"))
	require.Equal(t, "x *** y", s.Mask("x other value y"))
	require.Empty(t, Open(nil, filepath.Join(dir, "none")).Problems())
}

func TestMask(t *testing.T) {
	dir := t.TempDir()
	s := Open(map[string]string{"a": write(t, dir, "a", "abcdef", 0o600), "b": write(t, dir, "b", "abcdefgh", 0o600), "pin": write(t, dir, "pin", "1234", 0o600),
		"same": write(t, dir, "same", "abcdef", 0o600)}, "")
	for text, want := range map[string]string{"": "", "abcde": "abcde", "abcdef": "***", "xabcdefghy abcdef": "x***y ***", "pin 1234": "pin 1234"} {
		require.Equal(t, want, s.Mask(text))
	}
	require.Equal(t, "abcdef", Open(nil, "").Mask("abcdef"))
}
