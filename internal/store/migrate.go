package store

import (
	"encoding/binary"
	"fmt"
)

// schema is the version of what all owners keep in the store. A store of a higher one is refused, one of a lower one is migrated.
const schema = 1

// migration brings a store from one version to the next: it calls put and del for what changes, reading from snap. All of it is one
// transaction with the new version, so that a power cut leaves the store before or after it; what does not fit one has to be
// migrated by its owner, key by key, as it is read.
type migration func(snap *snapshot, put func(key, value []byte), del func(key []byte)) error

// migrations are all there are: the first from version 1 to 2, and so on. There is one less than there are versions.
func migrations() []migration { return nil }

// migrate runs what is missing, one version after another.
func (d *disk) migrate(version uint32, steps []migration) error {
	newest := uint32(len(steps)) + 1
	switch {
	case version > newest:
		return fmt.Errorf("%w: %s has format %d, this one reads up to %d: install the newer version again, or restore a backup",
			ErrNewer, d.dir, version, newest)
	case version == 0:
		return fmt.Errorf("%w: its version is 0", ErrDamaged)
	}
	for ; version < newest; version++ {
		if err := d.step(version, steps[version-1]); err != nil {
			return fmt.Errorf("bringing %s from format %d to %d: %w", d.dir, version, version+1, err)
		}
	}
	return nil
}

func (d *disk) step(version uint32, change migration) error {
	snap := d.snapshot()
	defer snap.release()
	all := newOverlay()
	err := change(snap,
		func(key, value []byte) { all.put(string(key), append([]byte{}, value...), false) },
		func(key []byte) { all.del(string(key)) })
	if err != nil {
		return err
	}
	all.put(string(schemaKey), binary.BigEndian.AppendUint32(nil, version+1), false)
	if !all.size.within(d.limits()) {
		return fmt.Errorf("%w: %d keys", ErrTooBig, all.size.count)
	}
	if err := d.commit(all.entries); err != nil {
		return err
	}
	return d.sync()
}
