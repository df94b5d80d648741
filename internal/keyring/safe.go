package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"sallyport/internal/ident"
)

// safeVersion begins every value that a Safe sealed.
const safeVersion = 2

// SafeOverhead is how many bytes longer a value is that a Safe sealed.
const SafeOverhead = 1 + nonceSize + tagSize

// maxSafeCache bounds the wrapped keys that a Safe keeps in memory, which spare a read for each Open.
const maxSafeCache = 4096

// Safe seals values under a key of their own each, which is wrapped under the key of the namespace: when that one key is
// destroyed, its value is unreadable wherever copies of it are, and no other is. It is safe for concurrent use.
type Safe struct {
	redacted
	wrapped Wrapped
	parent  key
	place   place

	mu    sync.Mutex
	cache map[string][]byte // wrapped keys by name
}

// Safe returns the safe of purpose in namespace ns. A purpose and the names of values consist of the characters of a Sealer's.
func (k *Keyring) Safe(ctx context.Context, ns ident.Namespace, purpose string) (*Safe, error) {
	if err := checkPurpose(purpose); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	parent, err := k.namespaceKey(ctx, ns)
	if err != nil {
		return nil, err
	}
	return &Safe{wrapped: k.wrapped, parent: parent, place: place{ns: ns, purpose: purpose}, cache: map[string][]byte{}}, nil
}

// Seal makes a key called name, stores it wrapped, and returns the value sealed with it. A name is used once: for one that there
// is a key of, it fails.
func (s *Safe) Seal(ctx context.Context, name string, plaintext, aad []byte) ([]byte, error) {
	stored, wrap, err := s.wrapper(name)
	if err != nil {
		return nil, err
	}
	if _, err := s.wrapped.Get(ctx, stored); err == nil {
		return nil, fmt.Errorf("there is a key %q already", name)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for key %q: %w", name, err)
	}
	k := newKey()
	defer clear(k.secret[:])
	record, err := wrap.seal(header{id: 1, created: now(), records: 1, bytes: int64(len(plaintext))}, k)
	if err != nil {
		return nil, err
	}
	if err := s.wrapped.Put(ctx, stored, record); err != nil {
		return nil, fmt.Errorf("store key %q: %w", name, err)
	}
	aead, err := k.aead("seal value")
	if err != nil {
		return nil, err
	}
	s.remember(name, record)
	return aead.Seal([]byte{safeVersion}, nil, plaintext, aad), nil
}

// Open returns the value that Seal was given with the same name and aad, else ErrOpen: its key is destroyed, or it was altered or is
// of another place. The caller clears what it gets when it is done with it.
func (s *Safe) Open(ctx context.Context, name string, sealed, aad []byte) ([]byte, error) {
	if len(sealed) < SafeOverhead || sealed[0] != safeVersion {
		return nil, ErrOpen
	}
	stored, wrap, err := s.wrapper(name)
	if err != nil {
		return nil, err
	}
	record, err := s.record(ctx, name, stored)
	if err != nil {
		return nil, err
	}
	_, k, err := wrap.open(record)
	if err != nil {
		return nil, damaged(stored, err)
	}
	defer clear(k.secret[:])
	aead, err := k.aead("seal value")
	if err != nil {
		return nil, err
	}
	value, err := aead.Open(nil, nil, sealed[1:], aad)
	if err != nil {
		return nil, ErrOpen
	}
	return value, nil
}

// Destroy removes the key of a value for good. That there is none is no error.
func (s *Safe) Destroy(ctx context.Context, name string) error {
	stored, _, err := s.wrapper(name)
	if err != nil {
		return err
	}
	if err := s.wrapped.Delete(ctx, stored); err != nil {
		return fmt.Errorf("destroy key %q: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.cache[name])
	delete(s.cache, name)
	return nil
}

// wrapper returns where the key of a value is stored and what wraps it.
func (s *Safe) wrapper(name string) (string, *wrapper, error) {
	if err := checkPurpose(name); err != nil {
		return "", nil, err
	}
	p := place{ns: s.place.ns, purpose: s.place.purpose + "\x00" + name}
	wrap, err := newWrapper(s.parent, levelValue, p)
	return "value/" + spaceName(s.place.ns) + "/" + s.place.purpose + "/" + name, wrap, err
}

func (s *Safe) record(ctx context.Context, name, stored string) ([]byte, error) {
	s.mu.Lock()
	record := bytes.Clone(s.cache[name])
	s.mu.Unlock()
	if record != nil {
		return record, nil
	}
	record, err := s.wrapped.Get(ctx, stored)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no key %q", ErrOpen, name)
	}
	if err != nil {
		return nil, fmt.Errorf("read key %q: %w", name, err)
	}
	s.remember(name, record)
	return record, nil
}

func (s *Safe) remember(name string, record []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.cache) >= maxSafeCache {
		clear(s.cache)
	}
	s.cache[name] = bytes.Clone(record)
}
