package outbox

import (
	"fmt"
	"time"

	"github.com/perigee-iot/perigee/sync/record"
)

// Priorities. While several streams of an uplink have something to send, high goes sixteen batches for four of normal
// and one of low: alerts overtake a backlog, and nothing starves.
const (
	High   = "high"
	Normal = "normal"
	Low    = "low"
)

// What a full stream drops.
const (
	DropOldest = "drop-oldest"
	DropNewest = "drop-newest"
)

// Config is how a stream is kept and sent. The zero value of each field means the default given with it.
type Config struct {
	Uplink   string // its name; default: Options.Uplink
	Priority string // High, Normal or Low; Normal
	Retain   Retain
	Batch    Limits
}

// Retain bounds what waits in a stream.
type Retain struct {
	Bytes int64         // as stored; 64 MiB
	Age   time.Duration // on the clock of Options.Now; 30 days
	Full  string        // DropOldest or DropNewest; DropOldest
}

// Limits bound a batch.
type Limits struct {
	Records int           // 100
	Bytes   int           // of the encoded batch, unless a single record is larger; 128 KiB
	Linger  time.Duration // how long the first record of a batch waits for more; 1 s, negative: not at all
}

// Filled returns the configuration with every default filled in.
func (c Config) Filled() Config {
	if c.Priority == "" {
		c.Priority = Normal
	}
	if c.Retain.Bytes == 0 {
		c.Retain.Bytes = 64 << 20
	}
	if c.Retain.Age == 0 {
		c.Retain.Age = 30 * 24 * time.Hour
	}
	if c.Retain.Full == "" {
		c.Retain.Full = DropOldest
	}
	if c.Batch.Records == 0 {
		c.Batch.Records = 100
	}
	if c.Batch.Bytes == 0 {
		c.Batch.Bytes = 128 << 10
	}
	if c.Batch.Linger == 0 {
		c.Batch.Linger = time.Second
	}
	return c
}

// Check returns an error that names the first field that makes no sense. It wants a filled configuration.
func (c Config) Check() error {
	switch {
	case weight(c.Priority) == 0:
		return fmt.Errorf("priority: %q is none of %s, %s, %s", c.Priority, High, Normal, Low)
	case c.Retain.Bytes < 1<<10:
		return fmt.Errorf("retain.bytes: %d is less than 1 KiB", c.Retain.Bytes)
	case c.Retain.Age < time.Second:
		return fmt.Errorf("retain.age: %v is less than 1s", c.Retain.Age)
	case c.Retain.Full != DropOldest && c.Retain.Full != DropNewest:
		return fmt.Errorf("retain.full: %q is none of %s, %s", c.Retain.Full, DropOldest, DropNewest)
	case c.Batch.Records < 1 || c.Batch.Records > record.MaxBatch:
		return fmt.Errorf("batch.records: %d is not between 1 and %d", c.Batch.Records, record.MaxBatch)
	case c.Batch.Bytes < 1<<10 || c.Batch.Bytes > 16<<20:
		return fmt.Errorf("batch.bytes: %d is not between 1 KiB and 16 MiB", c.Batch.Bytes)
	case c.Batch.Linger > time.Hour:
		return fmt.Errorf("batch.linger: %v is more than 1h", c.Batch.Linger)
	}
	return nil
}

func weight(priority string) int {
	switch priority {
	case High:
		return 16
	case Normal:
		return 4
	case Low:
		return 1
	}
	return 0
}
