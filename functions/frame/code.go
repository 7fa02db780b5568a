package frame

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/wire"
)

const (
	maxFiles  = 256
	maxPath   = 1 << 10
	maxDigest = 128
	maxRevoke = 256
	maxLayers = 32
	maxLayer  = 200
)

// AppendLoad appends a Load frame: the Lua files among files, under their digest. Tests and data stay at home.
func AppendLoad(buf []byte, digest string, files map[string][]byte) ([]byte, error) {
	w := begin(buf, Load)
	putCode(w, digest, files)
	return end(w, len(buf), maxCode)
}

// AppendCheck appends a Check frame; its answer names id. The limits are those of one invocation.
func AppendCheck(buf []byte, id uint64, digest string, files map[string][]byte, limits functions.Limits) ([]byte, error) {
	w := begin(buf, Check)
	w.Uint(id)
	putLimits(w, &limits)
	putCode(w, digest, files)
	return end(w, len(buf), maxCode)
}

func putCode(w *wire.Writer, digest string, files map[string][]byte) {
	w.String(digest)
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(files)), func(name string) bool {
		return path.Ext(name) != ".lua" || strings.HasPrefix(name, "tests/")
	})
	w.Uint(uint64(len(names)))
	for _, name := range names {
		w.String(name)
		w.Bytes(files[name])
	}
}

// Code is what Load and Check carry.
type Code struct {
	ID     uint64           // of a Check
	Limits functions.Limits // of a Check
	Digest string
	Files  map[string][]byte // by slash path
}

// DecodeLoad decodes the body of a Load frame. The files share its memory.
func DecodeLoad(body []byte) (*Code, error) {
	d := decode(body)
	c := getCode(d)
	return c, d.done(Load)
}

// DecodeCheck decodes the body of a Check frame. The files share its memory.
func DecodeCheck(body []byte) (*Code, error) {
	d := decode(body)
	id := d.Uint()
	var limits functions.Limits
	getLimits(d, &limits)
	c := getCode(d)
	c.ID, c.Limits = id, limits
	return c, d.done(Check)
}

func getCode(d *decoder) *Code {
	c := &Code{Digest: d.capped(maxDigest)}
	n := d.Count(maxFiles)
	c.Files = make(map[string][]byte, n)
	for range n {
		name := d.capped(maxPath)
		c.Files[name] = d.Bytes()
	}
	return c
}

// AppendRevoke appends a Revoke frame, AppendRevoked the answer to it.
func AppendRevoke(buf []byte, ids []uint64) ([]byte, error) {
	return appendIDs(buf, Revoke, ids)
}

// AppendRevoked appends a Revoked frame: the ids that were given back, which may be none.
func AppendRevoked(buf []byte, ids []uint64) ([]byte, error) {
	return appendIDs(buf, Revoked, ids)
}

func appendIDs(buf []byte, t Type, ids []uint64) ([]byte, error) {
	w := begin(buf, t)
	w.Uint(uint64(len(ids)))
	for _, id := range ids {
		w.Uint(id)
	}
	return end(w, len(buf), maxIDs)
}

// DecodeIDs decodes the body of a Revoke or Revoked frame.
func DecodeIDs(body []byte) ([]uint64, error) {
	d := decode(body)
	ids := make([]uint64, d.Count(maxRevoke))
	for i := range ids {
		ids[i] = d.Uint()
	}
	return ids, d.done(Revoked)
}

// LayerState says whether a layer of confinement is in force.
type LayerState byte

const (
	On          LayerState = iota // it is in force
	Off                           // it could be in force and is not
	Unavailable                   // this machine does not have it
)

// String names the state as people read it.
func (s LayerState) String() string {
	switch s {
	case On:
		return "on"
	case Off:
		return "off"
	case Unavailable:
		return "unavailable"
	}
	return fmt.Sprintf("state %d", byte(s))
}

// Layer is one layer of a worker's confinement.
type Layer struct {
	Name  string // "rlimits", "no_new_privs", …
	State LayerState
	Why   string // it is not in force, or only in part; empty if it is
}

// AppendReady appends a Ready frame.
func AppendReady(buf []byte, layers []Layer) ([]byte, error) {
	w := begin(buf, Ready)
	w.Uint(Version)
	layers = layers[:min(len(layers), maxLayers)]
	w.Uint(uint64(len(layers)))
	for _, l := range layers {
		w.String(clip(l.Name, maxLayer))
		w.Byte(byte(l.State))
		w.String(clip(l.Why, maxLayer))
	}
	return end(w, len(buf), maxReady)
}

// DecodeReady decodes the body of a Ready frame.
func DecodeReady(body []byte) ([]Layer, error) {
	d := decode(body)
	if v := d.Uint(); d.Err() == nil && v != Version {
		d.breach("version %d, this gateway speaks version %d", v, Version)
	}
	layers := make([]Layer, d.Count(maxLayers))
	for i := range layers {
		layers[i] = Layer{Name: d.line(maxLayer), State: LayerState(d.Byte()), Why: d.line(maxLayer)}
		if d.Err() == nil && layers[i].State > Unavailable {
			d.breach("a layer in %s", layers[i].State)
		}
	}
	return layers, d.done(Ready)
}

// AppendConfining appends a Confining frame.
func AppendConfining(buf []byte, layer string) ([]byte, error) {
	w := begin(buf, Confining)
	w.String(layer)
	return end(w, len(buf), maxNeed)
}

// DecodeConfining decodes the body of a Confining frame: the name of the layer.
func DecodeConfining(body []byte) (string, error) {
	d := decode(body)
	layer := d.line(maxLayer)
	return layer, d.done(Confining)
}

// AppendNeed appends a Need frame.
func AppendNeed(buf []byte, digest string) ([]byte, error) {
	w := begin(buf, Need)
	w.String(digest)
	return end(w, len(buf), maxNeed)
}

// DecodeNeed decodes the body of a Need frame.
func DecodeNeed(body []byte) (string, error) {
	d := decode(body)
	digest := d.capped(maxDigest)
	return digest, d.done(Need)
}

// AppendChecked appends a Checked frame: what became of the Check of that id, nil if the code compiles.
func AppendChecked(buf []byte, id uint64, f *functions.Fault) ([]byte, error) {
	w := begin(buf, Checked)
	w.Uint(id)
	w.Bool(f != nil)
	if f != nil {
		putFault(w, f)
	}
	return end(w, len(buf), maxText)
}

// DecodeChecked decodes the body of a Checked frame.
func DecodeChecked(body []byte) (uint64, *functions.Fault, error) {
	d := decode(body)
	id := d.Uint()
	var f *functions.Fault
	if d.Bool() {
		f = getFault(d)
	}
	return id, f, d.done(Checked)
}
