package config

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReadKey(t *testing.T) {
	dir := t.TempDir()
	raw := bytes.Repeat([]byte{0xa5}, keyBytes)
	write := func(name string, data []byte, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, data, mode))
		require.NoError(t, os.Chmod(file, mode))
		return file
	}
	for _, file := range []string{
		write("raw", raw, 0o600), write("hex", []byte(hex.EncodeToString(raw)+"\n"), 0o400), write("upper", []byte(" "+strings.ToUpper(hex.EncodeToString(raw))), 0o640),
	} {
		key, err := ReadKey(file)
		require.NoError(t, err, file)
		require.Equal(t, raw, key)
	}
	for name, c := range map[string]struct{ file, want string }{
		"absent":    {filepath.Join(dir, "none"), "openssl rand -hex 32"},
		"open":      {write("open", raw, 0o604), "chmod 600"},
		"writable":  {write("writable", raw, 0o660), "chmod 600"},
		"directory": {dir, "is not a file"},
		"empty":     {write("empty", nil, 0o600), "64 hexadecimal digits"},
		"short":     {write("short", []byte(hex.EncodeToString(raw[:16])), 0o600), "64 hexadecimal digits"},
		"words":     {write("words", []byte("a password that is no key"), 0o600), "64 hexadecimal digits"},
	} {
		_, err := ReadKey(c.file)
		require.ErrorContains(t, err, c.want, name)
		require.NotContains(t, err.Error(), "a5a5", "what is in it is not shown")
		require.NotContains(t, err.Error(), "password")
	}
}
