package app

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/internal/backup"
	"github.com/perigee-iot/perigee/internal/store"
)

const counter = "return function(event) local n = state.incr('n', 1) stream.append('counts', {n = n}) return n end"

const counterYAML = "triggers: [{mqtt: in/+}]\npermissions: {streams: [counts]}\n"

// TestAGatewayGoesOnFromItsBackup: the state, the functions and what waits are those of the moment of the backup, and streams go on
// under a new epoch.
func TestAGatewayGoesOnFromItsBackup(t *testing.T) {
	for name, more := range map[string]string{"plain": "", "encrypted": "  key_file: store.key\n"} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			s := newSite(t)
			s.write("store.key", strings.Repeat("0f", 32))
			require.NoError(t, os.Chmod(filepath.Join(s.dir, "store.key"), 0o600))
			s.write("gateway.yaml", strings.Replace(s.read("gateway.yaml"), "store: {durability: crash, min_free: 16MiB}\n",
				"store:\n  durability: crash\n  min_free: 16MiB\n"+more, 1))
			a := s.open()
			_, err := a.Apply(ctx, &api.ApplyRequest{Name: "count", Files: map[string][]byte{"function.yaml": []byte(counterYAML), "main.lua": []byte(counter)}})
			require.NoError(t, err)
			invoke(t, a, "count", "1")
			invoke(t, a, "count", "1")
			var file bytes.Buffer
			require.NoError(t, a.Backup(ctx, &file))
			sum, err := backup.Check(bytes.NewReader(file.Bytes()))
			require.NoError(t, err)
			require.Equal(t, more != "", sum.Sealed())
			require.Positive(t, sum.Spaces["state"])
			require.Positive(t, sum.Spaces["functions"])
			require.Equal(t, "3", string(invoke(t, a, "count", "1").Result), "it goes on meanwhile")

			cfg, log := a.config(), slog.New(slog.DiscardHandler)
			o := store.RestoreOptions{Replace: true}
			_, err = Restore(ctx, cfg, log, "", o, bytes.NewReader(file.Bytes()))
			require.ErrorIs(t, err, store.ErrLocked)
			require.NoError(t, a.Stop(ctx))
			var offline bytes.Buffer
			require.NoError(t, BackupOf(ctx, cfg, "0.1.0", log, &offline))
			_, err = backup.Check(&offline)
			require.NoError(t, err)

			got, err := Restore(ctx, cfg, log, "", o, bytes.NewReader(file.Bytes()))
			require.NoError(t, err)
			require.DirExists(t, got.Replaced)
			b := s.open()
			require.Equal(t, "3", string(invoke(t, b, "count", "1").Result), "it had counted to 2")
			streams, err := b.Streams(ctx)
			require.NoError(t, err)
			require.Equal(t, got.NewEpoch, streams[0].Epoch)
			require.Equal(t, int64(3), streams[0].Waiting, "two under the old epoch, one under the new")
			require.Equal(t, uint64(2), streams[0].Next, "of the new epoch")
			require.NoError(t, b.Stop(ctx))
		})
	}
}

func TestNoBackupOfNoStore(t *testing.T) {
	s := newSite(t)
	cfg, err := s.load()
	require.NoError(t, err)
	require.ErrorContains(t, BackupOf(context.Background(), cfg, "0.1.0", slog.New(slog.DiscardHandler), &bytes.Buffer{}), "there is no store in")
	require.NoDirExists(t, cfg.DataDir)
}

// TestTheWrongKeyChangesNothing: a gateway with another key does not start, and does not take the store for damaged.
func TestTheWrongKeyChangesNothing(t *testing.T) {
	s := newSite(t)
	key := func(digits string) {
		s.write("store.key", strings.Repeat(digits, 32))
		require.NoError(t, os.Chmod(filepath.Join(s.dir, "store.key"), 0o600))
	}
	key("0f")
	s.write("gateway.yaml", strings.Replace(s.read("gateway.yaml"), "min_free: 16MiB", "min_free: 16MiB, key_file: store.key", 1))
	a := s.open()
	require.NoError(t, a.Stop(context.Background()))
	key("f0")
	_, err := New(s.options())
	require.ErrorIs(t, err, store.ErrKey)
	require.NoDirExists(t, filepath.Join(s.dir, "data", "damaged"))
	key("0f")
	require.NoError(t, s.open().Stop(context.Background()))
}

func (s *site) read(name string) string {
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	require.NoError(s.t, err)
	return string(b)
}

// TestADamagedStoreIsSalvaged: what can be read goes on, and a function whose state is not whole waits for somebody to look at it.
func TestADamagedStoreIsSalvaged(t *testing.T) {
	ctx := context.Background()
	s := newSite(t)
	a := s.open()
	for _, name := range []string{"count", "other"} {
		_, err := a.Apply(ctx, &api.ApplyRequest{Name: name, Files: map[string][]byte{"function.yaml": []byte(counterYAML), "main.lua": []byte(counter)}})
		require.NoError(t, err)
		invoke(t, a, name, "1")
	}
	// As if a block had been lost with all that the function knew.
	require.NoError(t, a.st.Update(func(tx store.Tx) error {
		for _, k := range []store.Key{store.NewKey(store.State).String("count").String("k").String("").String("n"), store.NewKey(store.State).String("count").String("t")} {
			tx.Delete(k)
		}
		return nil
	}))
	require.NoError(t, a.Stop(ctx))
	require.NoError(t, os.Remove(filepath.Join(s.dir, "data", "db", "MANIFEST")))

	a = s.open()
	st, err := a.Status(ctx)
	require.NoError(t, err)
	require.Len(t, st.Problems, 2)
	require.Contains(t, st.Problems[0], "function count is paused: the state of function count is damaged")
	require.Contains(t, st.Problems[1], "could be read and were taken over")
	f, err := a.Function(ctx, "other")
	require.NoError(t, err)
	require.Equal(t, "active", f.State)
	require.Equal(t, "2", string(invoke(t, a, "other", "1").Result))
	f, err = a.Function(ctx, "count")
	require.NoError(t, err)
	require.Equal(t, "paused", f.State)
	require.Contains(t, f.Reason, "its state is damaged")
	require.NoError(t, a.Resume(ctx, "count"))
	require.Equal(t, "1", string(invoke(t, a, "count", "1").Result), "somebody has looked at it")
	st, err = a.Status(ctx)
	require.NoError(t, err)
	require.Len(t, st.Problems, 1)
	require.NoError(t, a.Stop(ctx))
	a = s.open()
	f, err = a.Function(ctx, "count")
	require.NoError(t, err)
	require.Equal(t, "active", f.State)
}
