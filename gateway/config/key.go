package config

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// keyBytes is the length of a key of the store: AES-256.
const keyBytes = 32

// ReadKey reads the file of a key: 64 hexadecimal digits, or 32 bytes as they are. Others may not read it. Errors never show what is in it.
func ReadKey(file string) ([]byte, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no file %s; to make a key: openssl rand -hex 32 >%s, chmod 600, and keep a copy elsewhere", file, file)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a file", file)
	case info.Mode().Perm()&0o037 != 0:
		return nil, fmt.Errorf("%s is the key of the store, and others may read or change it: chmod 600 %s", file, file)
	}
	b, err := io.ReadAll(io.LimitReader(f, 4<<10))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if len(b) == keyBytes && bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' || r > '~' }) { // 32 digits or letters are no key
		return b, nil
	}
	key, err := hex.DecodeString(string(bytes.TrimSpace(b)))
	if err != nil || len(key) != keyBytes {
		return nil, fmt.Errorf("%s has no key in it: it should have 64 hexadecimal digits, as openssl rand -hex 32 makes them", file)
	}
	return key, nil
}
