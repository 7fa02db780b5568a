package backup_test

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perigee-iot/perigee/internal/backup"
)

type entry struct{ key, value string }

func name(first byte) string { return strconv.Itoa(int(first)) }

func key() []byte { return bytes.Repeat([]byte{7}, 32) }

func header() backup.Header {
	return backup.Header{Gateway: "gw-01", Version: "0.1.0", Schema: 1, Epoch: "0123456789abcdef", Created: time.Unix(1700000000, 0).UTC()}
}

func write(t require.TestingT, entries []entry, key []byte) ([]byte, backup.Summary) {
	var out bytes.Buffer
	w, err := backup.NewWriter(&out, header(), key, name)
	require.NoError(t, err)
	for _, e := range entries {
		require.NoError(t, w.Add([]byte(e.key), []byte(e.value)))
	}
	sum, err := w.Close()
	require.NoError(t, err)
	require.Equal(t, int64(out.Len()), sum.Size)
	return out.Bytes(), sum
}

func read(file, key []byte) (entries []entry, sum backup.Summary, err error) {
	r, err := backup.NewReader(bytes.NewReader(file), key)
	if err != nil {
		return nil, sum, err
	}
	for {
		k, v, err := r.Next()
		if errors.Is(err, io.EOF) {
			return entries, r.Summary(), nil
		}
		if err != nil {
			return nil, sum, err
		}
		entries = append(entries, entry{string(k), string(v)})
	}
}

// many are entries that take several frames, one of them a large one.
func many() (out []entry) {
	for i := range 3000 {
		e := entry{"s" + strconv.Itoa(100000+i), string(bytes.Repeat([]byte{byte(i)}, i%90))}
		if i == 1500 {
			e.value = string(make([]byte, 200_000))
		}
		out = append(out, e)
	}
	return append(out, entry{"u", ""})
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := rapid.MapOf(rapid.StringN(1, 20, 60), rapid.String()).Draw(t, "entries")
		var entries []entry
		for k, v := range set {
			entries = append(entries, entry{k, v})
		}
		sortEntries(entries)
		var secret []byte
		if rapid.Bool().Draw(t, "sealed") {
			secret = key()
		}
		file, wrote := write(t, entries, secret)
		got, sum, err := read(file, key())
		require.NoError(t, err)
		require.Equal(t, entries, got)
		require.Equal(t, wrote, sum)
		checked, err := backup.Check(bytes.NewReader(file))
		require.NoError(t, err)
		require.Equal(t, wrote, checked)
		require.Equal(t, "gw-01", checked.Gateway)
		require.Equal(t, secret != nil, checked.Sealed())
	})
}

func sortEntries(e []entry) {
	for i := range e {
		for j := i; j > 0 && e[j].key < e[j-1].key; j-- {
			e[j], e[j-1] = e[j-1], e[j]
		}
	}
}

// TestNoChangeGoesUnnoticed changes one byte, or cuts the file off, anywhere.
func TestNoChangeGoesUnnoticed(t *testing.T) {
	for name, secret := range map[string][]byte{"plain": nil, "sealed": key()} {
		t.Run(name, func(t *testing.T) {
			file, _ := write(t, many()[:4], secret)
			for i := range file {
				for _, harm := range [][]byte{flip(file, i), file[:i], append(bytes.Clone(file[:i]), file[min(i+3, len(file)):]...)} {
					_, _, err := read(harm, key())
					requireKnown(t, err, i)
					_, err = backup.Check(bytes.NewReader(harm))
					requireKnown(t, err, i)
				}
			}
			_, err := backup.Check(bytes.NewReader(append(bytes.Clone(file), 0)))
			require.ErrorIs(t, err, backup.ErrDamaged)
		})
	}
	file, _ := write(t, many(), nil)
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.IntRange(0, len(file)-1).Draw(t, "at")
		_, err := backup.Check(bytes.NewReader(flip(file, at)))
		requireKnown(t, err, at)
		_, err = backup.Check(bytes.NewReader(file[:at]))
		requireKnown(t, err, at)
	})
}

func flip(file []byte, at int) []byte {
	out := bytes.Clone(file)
	out[at] ^= 1 << (at % 8)
	return out
}

func requireKnown(t require.TestingT, err error, at int) {
	known := errors.Is(err, backup.ErrDamaged) || errors.Is(err, backup.ErrNotBackup) || errors.Is(err, backup.ErrNewer)
	require.True(t, known, "byte %d: %v", at, err)
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	plain, _ := write(t, many(), nil)
	sealed, _ := write(t, many(), key())
	for name, c := range map[string]struct {
		file []byte
		key  []byte
		want error
		text string
	}{
		"empty":        {nil, nil, backup.ErrNotBackup, ""},
		"another file": {[]byte("PK\x03\x04 some archive of another program"), nil, backup.ErrNotBackup, ""},
		"newer":        {[]byte("perigee backup 7\n........"), nil, backup.ErrNewer, `"7\n"`},
		"cut off":      {plain[:len(plain)/2], nil, backup.ErrDamaged, "cut off"},
		"cut at a frame": {plain[:len(plain)-endBytes(plain)], nil, backup.ErrDamaged,
			"cut off"},
		"changed":   {flip(plain, len(plain)/2), nil, backup.ErrDamaged, "checksum"},
		"continued": {append(bytes.Clone(plain), plain...), nil, backup.ErrDamaged, "follows its end"},
		"no key":    {sealed, nil, backup.ErrKey, "none was given"},
		"wrong key": {sealed, bytes.Repeat([]byte{8}, 32), backup.ErrKey, ""},
	} {
		_, _, err := read(c.file, c.key)
		require.ErrorIs(t, err, c.want, name)
		require.ErrorContains(t, err, c.text, name)
	}
}

// endBytes is the length of the last frame.
func endBytes(file []byte) int { return len(file) - bytes.LastIndex(file, []byte("E\x00\x00\x00")) }

func TestWriterRefusesDisorder(t *testing.T) {
	w, err := backup.NewWriter(io.Discard, header(), nil, name)
	require.NoError(t, err)
	require.NoError(t, w.Add([]byte("b"), nil))
	require.Error(t, w.Add([]byte("b"), nil))
	require.Error(t, w.Add([]byte("a"), nil))
	require.Error(t, w.Add(nil, nil))
	require.Error(t, w.Add([]byte("c"), make([]byte, 17<<20)))
}

// FuzzRead: no file makes the reader panic, or take more memory than the file is long.
func FuzzRead(f *testing.F) {
	for _, secret := range [][]byte{nil, key()} {
		file, _ := write(f, many()[:20], secret)
		f.Add(file)
		f.Add(file[:len(file)/2])
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		entries, sum, err := read(file, key())
		if err == nil && int64(len(entries)) != sum.Keys {
			t.Fatalf("%d entries, %d in the summary", len(entries), sum.Keys)
		}
		_, _ = backup.Check(bytes.NewReader(file))
	})
}
