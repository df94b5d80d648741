// Package store is the one place where Sallyport keeps data: a NATS JetStream server inside this
// process, with no listener, every write synced before it is acknowledged. It offers append-only
// Streams of opaque payloads, sealed key-value Buckets for control state, sealed content-addressed
// Blobs, and the place of the keyring's wrapped keys.
//
// It does not know what it stores. Stream payloads are sealed by their writer; buckets and blobs seal
// with the Sealer they are given. Names of streams, buckets and blob spaces and the keys of a bucket
// are on disk in clear: they MUST NOT be made of event data.
//
// Invariants. What was acknowledged is on disk. Below the reserve of free space nothing is accepted
// and everything can be read, deleted and trimmed. A write error freezes a JetStream stream for good,
// so the Engine then restarts its JetStream server, as soon as there is space; Streams, Buckets and
// Blobs stay valid across that. One Engine has a directory at a time.
//
// Callers are eventlog, and through it the event log's users; access, deploy and dispatch keep their
// state in buckets; server owns the Engine. This is the only package that imports NATS.
package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"sallyport/internal/problem"
)

// The errors that callers tell apart with errors.Is.
var (
	// ErrNotFound says that there is no such message, key or blob. It is fs.ErrNotExist.
	ErrNotFound = fmt.Errorf("not in the store: %w", fs.ErrNotExist)
	// ErrExists says that Create found the key taken. It is fs.ErrExist.
	ErrExists = fmt.Errorf("in the store already: %w", fs.ErrExist)
	// ErrConflict says that the last sequence of the stream is not the expected one.
	ErrConflict = errors.New("the last sequence of the stream is not the expected one")
	// ErrTooLarge says that a payload, value, blob or key is larger than its limit.
	ErrTooLarge = errors.New("too large to store")
)

// The errors that a user may see as they are; each is a problem.Error.
var (
	// ErrStorageFull says that nothing was stored because free space is below the reserve.
	ErrStorageFull error = problem.New(problem.StorageFull, "store.full", "the server's disk is full").
			WithHint("free space on the file system of the data directory; service resumes by itself").
			WithRetryAfter(fullRetryAfter)
	// ErrStalled says that the disk did not answer in time, or refused a write. What was being written
	// may or may not be stored: read the state before writing again.
	ErrStalled error = problem.New(problem.Unavailable, "store.stalled", "the server's disk does not answer").
			WithRetryAfter(stalledRetryAfter)
	// ErrClosed says that the engine is closed.
	ErrClosed error = problem.New(problem.Unavailable, "store.closed", "the server is shutting down").
			WithRetryAfter(stalledRetryAfter)
)

const (
	fullRetryAfter    = 5 * time.Second
	stalledRetryAfter = time.Second
)

const (
	// MaxPayload is the largest payload of a stream and the largest sealed value of a bucket, in bytes.
	// A message is held in memory a few times on its way.
	MaxPayload = 8 << 20
	// MaxBlob is the largest blob in bytes: a bundle's module, which is compiled in memory.
	MaxBlob = 96 << 20
	// MaxKey is the longest key of a bucket in bytes; its escaped form is part of a NATS subject, which
	// fits in a protocol line of 4 KiB.
	MaxKey = 512
	// MaxName is the longest name of a stream, bucket or blob space in bytes: a stream's is a folder.
	MaxName = 128
)

const (
	// writeLimit is how long a write to a stream may take before its writer is told that the store
	// has stalled. A publisher must have its answer within a second.
	writeLimit = 750 * time.Millisecond
	// stateLimit is that for control state, whose writers have nobody waiting a second for them.
	stateLimit = 5 * time.Second
	// controlLimit bounds every other operation whose context has no deadline.
	controlLimit = 15 * time.Second
)

// DefaultMinFree is the reserve of free space in bytes: room for the writes under way when the disk
// fills up, and for deleting and compacting after that.
const DefaultMinFree = 32 << 20

// Config says where and how an Engine stores.
type Config struct {
	// Dir is the engine's folder; it is made when it does not exist.
	Dir string
	// MinFree is how many bytes of Dir's file system stay free: below, appends are refused. 0 means
	// DefaultMinFree. Control state may use half of the reserve, keys and deletions all of it.
	MinFree int64
	// Logger gets the engine's state changes; nil means none.
	Logger *slog.Logger
}

// Validate reports every fault of the configuration.
func (c Config) Validate() error {
	var faults []error
	if c.Dir == "" {
		faults = append(faults, errors.New("store: Dir is empty"))
	}
	if c.MinFree < 0 {
		faults = append(faults, fmt.Errorf("store: MinFree is %d", c.MinFree))
	}
	return errors.Join(faults...)
}

// Sealer seals what a bucket or a blob space stores; *keyring.Sealer is one.
type Sealer interface {
	Seal(dst, plaintext, aad []byte) ([]byte, error)
	Open(dst, sealed, aad []byte) ([]byte, error)
}
