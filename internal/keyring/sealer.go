package keyring

import (
	"context"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// sealedVersion begins every sealed value. A value of per-subject keys, when they come, has another.
const sealedVersion = 1

// prefixSize is the version and the key id.
const prefixSize = 1 + 4

// Overhead is how many bytes longer a sealed value is than its plain text.
const Overhead = prefixSize + nonceSize + tagSize

// A segment key is replaced when it is this old or sealed this much. The bounds of AES-GCM with random
// nonces (2^32 values for a collision chance of 2^-32) are well above twice these, the hard limits.
const (
	RotateAge     = 24 * time.Hour
	RotateRecords = 1 << 30
	RotateBytes   = 64 << 30
)

// A key's use is counted in memory; what is stored with it is a count that it will not pass without
// storing a higher one. So a crash can lose at most one step, and never lets a key pass its limits.
const (
	stepRecords = RotateRecords / 16
	stepBytes   = RotateBytes / 16
)

const (
	// storeLimit bounds the storing of a key within Seal: a caller waits, and can go on without.
	storeLimit = 500 * time.Millisecond
	// loadLimit bounds the reading of a key within Open.
	loadLimit = 5 * time.Second
	// retryAfter is how long Seal goes on with the old key after a failure to store a new one.
	retryAfter = time.Second
)

// Sealer seals and opens the values of one purpose in one namespace. It is safe for concurrent use.
type Sealer struct {
	redacted
	wrapped Wrapped
	place   place
	wrapper *wrapper
	digests sync.Pool

	current atomic.Pointer[segment]
	keys    sync.Map // uint32 → *segment, of the keys used since the start

	mu      sync.Mutex // held while the current key is replaced or its count is stored
	retryAt time.Time
}

// segment is a segment key in use.
type segment struct {
	id      uint32
	key     key
	aead    cipher.AEAD
	created time.Time
	// records and bytes count what it sealed.
	records, bytes atomic.Int64
	// storedRecords and storedBytes are the counts that are stored with it.
	storedRecords, storedBytes atomic.Int64
}

func newSealer(ctx context.Context, wrapped Wrapped, parent key, p place) (*Sealer, error) {
	wrap, err := newWrapper(parent, levelSegment, p)
	if err != nil {
		return nil, err
	}
	macKey, err := parent.derive("mac " + p.purpose)
	if err != nil {
		return nil, fmt.Errorf("derive a key: %w", err)
	}
	s := &Sealer{wrapped: wrapped, place: p, wrapper: wrap}
	s.digests.New = newDigester(macKey)
	if err := s.loadCurrent(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Sealer) loadCurrent(ctx context.Context) error {
	record, err := s.wrapped.Get(ctx, currentName(s.place))
	if errors.Is(err, fs.ErrNotExist) {
		return s.rotate(ctx, 1)
	}
	if err != nil {
		return fmt.Errorf("read the current segment key: %w", err)
	}
	seg, err := s.unwrap(record)
	if err != nil {
		return damaged(currentName(s.place), err)
	}
	s.keys.Store(seg.id, seg)
	s.current.Store(seg)
	return nil
}

func (s *Sealer) unwrap(record []byte) (*segment, error) {
	h, k, err := s.wrapper.open(record)
	if err != nil {
		return nil, err
	}
	return newSegment(h, k)
}

func newSegment(h header, k key) (*segment, error) {
	aead, err := k.aead("seal")
	if err != nil {
		return nil, err
	}
	seg := &segment{id: h.id, key: k, aead: aead, created: h.created}
	seg.records.Store(h.records)
	seg.bytes.Store(h.bytes)
	seg.storedRecords.Store(h.records)
	seg.storedBytes.Store(h.bytes)
	return seg, nil
}

// Seal appends the sealed plaintext to dst and returns the extended slice. The value opens only with
// the same aad. It allocates nothing when dst has room for len(plaintext)+Overhead bytes. plaintext
// MUST NOT overlap the free part of dst. It stores a new key when the present one is used up, which
// takes a disk write; it fails only when that was not possible for long (ErrExhausted).
func (s *Sealer) Seal(dst, plaintext, aad []byte) ([]byte, error) {
	seg := s.current.Load()
	records, size := seg.records.Add(1), seg.bytes.Add(int64(len(plaintext)))
	if records > seg.storedRecords.Load() || size > seg.storedBytes.Load() || time.Since(seg.created) >= RotateAge {
		var err error
		if seg, err = s.renew(seg, records, size); err != nil {
			return dst, err
		}
	}
	dst = append(dst, sealedVersion)
	dst = binary.BigEndian.AppendUint32(dst, seg.id)
	return seg.aead.Seal(dst, nil, plaintext, aad), nil
}

// Open appends the plain text of sealed to dst and returns the extended slice. It fails with ErrOpen
// when sealed is not what Seal returned for the same aad; then dst is returned as it was. It allocates
// nothing when dst has room.
func (s *Sealer) Open(dst, sealed, aad []byte) ([]byte, error) {
	if len(sealed) < Overhead || sealed[0] != sealedVersion {
		return dst, ErrOpen
	}
	seg, err := s.segment(binary.BigEndian.Uint32(sealed[1:]))
	if err != nil {
		return dst, err
	}
	opened, err := seg.aead.Open(dst, nil, sealed[prefixSize:], aad)
	if err != nil {
		return dst, ErrOpen
	}
	return opened, nil
}

// OpenInPlace is Open for a long value that is needed no more: the plain text, or nothing of use after an error, is where
// sealed was.
func (s *Sealer) OpenInPlace(sealed, aad []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, ErrOpen
	}
	return s.Open(sealed[prefixSize:prefixSize], sealed, aad)
}

// segment returns the key of that number.
func (s *Sealer) segment(id uint32) (*segment, error) {
	if seg := s.current.Load(); seg.id == id {
		return seg, nil
	}
	if found, ok := s.keys.Load(id); ok {
		return found.(*segment), nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), loadLimit)
	defer cancel()
	name := segmentName(s.place, id)
	record, err := s.wrapped.Get(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no segment key %d", ErrOpen, id)
	}
	if err != nil {
		return nil, fmt.Errorf("read segment key %d: %w", id, err)
	}
	seg, err := s.unwrap(record)
	if err == nil && seg.id != id {
		err = errWrapped
	}
	if err != nil {
		return nil, damaged(name, err)
	}
	found, _ := s.keys.LoadOrStore(id, seg)
	return found.(*segment), nil
}

// renew returns the key to seal with after seg came to the end of its stored count or age: seg with a
// higher count, or its successor. One caller does the work and the others go on with seg meanwhile;
// after a failure all do, up to the hard limits.
func (s *Sealer) renew(seg *segment, records, size int64) (*segment, error) {
	hard := records > 2*RotateRecords || size > 2*RotateBytes
	if hard {
		s.mu.Lock()
	} else if !s.mu.TryLock() {
		return seg, nil
	}
	defer s.mu.Unlock()
	if current := s.current.Load(); current != seg {
		return current, nil
	}
	if !hard && time.Now().Before(s.retryAt) {
		return seg, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeLimit)
	defer cancel()
	var err error
	if records > RotateRecords || size > RotateBytes || time.Since(seg.created) >= RotateAge {
		err = s.rotate(ctx, seg.id+1)
	} else {
		err = s.raise(ctx, seg)
	}
	if err != nil && hard {
		return nil, fmt.Errorf("%w: %w", ErrExhausted, err)
	}
	if err != nil {
		s.retryAt = time.Now().Add(retryAfter)
	}
	return s.current.Load(), nil
}

// raise stores a higher count with seg.
func (s *Sealer) raise(ctx context.Context, seg *segment) error {
	h := header{
		id: seg.id, created: seg.created,
		records: max(seg.storedRecords.Load(), seg.records.Load()) + stepRecords,
		bytes:   max(seg.storedBytes.Load(), seg.bytes.Load()) + stepBytes,
	}
	record, err := s.wrapper.seal(h, seg.key)
	if err != nil {
		return err
	}
	if err := s.wrapped.Put(ctx, currentName(s.place), record); err != nil {
		return fmt.Errorf("store the count of a segment key: %w", err)
	}
	seg.storedRecords.Store(h.records)
	seg.storedBytes.Store(h.bytes)
	return nil
}

// rotate makes a new segment key, with the first free number from id on, the current one. A number can
// be taken when a crash came between the two writes below.
func (s *Sealer) rotate(ctx context.Context, id uint32) error {
	for {
		if id == 0 || id == math.MaxUint32 {
			return errors.New("the numbers of segment keys are used up")
		}
		_, err := s.wrapped.Get(ctx, segmentName(s.place, id))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return fmt.Errorf("look for a free segment key number: %w", err)
		}
		id++
	}
	h, k := header{id: id, created: now(), records: stepRecords, bytes: stepBytes}, newKey()
	record, err := s.wrapper.seal(h, k)
	if err != nil {
		return err
	}
	seg, err := newSegment(h, k)
	if err != nil {
		return err
	}
	seg.records.Store(0)
	seg.bytes.Store(0)
	// The numbered record comes first: once "current" names a key, it can be found by its number.
	for _, name := range []string{segmentName(s.place, id), currentName(s.place)} {
		if err := s.wrapped.Put(ctx, name, record); err != nil {
			return fmt.Errorf("store a segment key: %w", err)
		}
	}
	s.keys.Store(id, seg)
	s.current.Store(seg)
	return nil
}
