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

// maxSafeCache bounds the keys that a Safe keeps in memory.
const maxSafeCache = 4096

// sealUse is the use of a value's key that its value is sealed with.
const sealUse = "seal value"

// Safe seals values under a key of their own each, which is wrapped under the key of the namespace: when that one key is
// destroyed, its value is unreadable wherever copies of it are, and no other is. It is safe for concurrent use.
type Safe struct {
	redacted
	wrapped Wrapped
	parent  key
	place   place

	mu sync.Mutex
	// cache has what the values are sealed with, by their names: to read a key, unwrap it and derive this from it takes ten times as long as to open
	// a value. It is no more than what the parent and the wrapped key, which would be kept in its place, make together. A key that is destroyed is cleared in here.
	cache     map[string]*[keySize]byte
	destroyed int // how often a key was
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
	return &Safe{wrapped: k.wrapped, parent: parent, place: place{ns: ns, purpose: purpose}, cache: map[string]*[keySize]byte{}}, nil
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
	s.mu.Lock()
	destroyed := s.destroyed
	s.mu.Unlock()
	k := newKey()
	defer clear(k.secret[:])
	record, err := wrap.seal(header{id: 1, created: now(), records: 1, bytes: int64(len(plaintext))}, k)
	if err != nil {
		return nil, err
	}
	if err := s.wrapped.Put(ctx, stored, record); err != nil {
		return nil, fmt.Errorf("store key %q: %w", name, err)
	}
	derived, err := k.derive(sealUse)
	if err != nil {
		return nil, fmt.Errorf("derive a key: %w", err)
	}
	defer clear(derived)
	aead, err := newAEAD(derived)
	if err != nil {
		return nil, err
	}
	s.remember(name, derived, destroyed)
	return aead.Seal([]byte{safeVersion}, nil, plaintext, aad), nil
}

// Open returns the value that Seal was given with the same name and aad, else ErrOpen: its key is destroyed, or it was altered or is
// of another place. The caller clears what it gets when it is done with it.
func (s *Safe) Open(ctx context.Context, name string, sealed, aad []byte) ([]byte, error) {
	if len(sealed) < SafeOverhead || sealed[0] != safeVersion {
		return nil, ErrOpen
	}
	derived, err := s.key(ctx, name)
	if err != nil {
		return nil, err
	}
	defer clear(derived)
	aead, err := newAEAD(derived)
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
	if kept := s.cache[name]; kept != nil {
		clear(kept[:])
	}
	delete(s.cache, name)
	s.destroyed++
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

// key returns what the value of a name is sealed with: a copy, which the caller clears.
func (s *Safe) key(ctx context.Context, name string) ([]byte, error) {
	s.mu.Lock()
	if kept := s.cache[name]; kept != nil {
		defer s.mu.Unlock()
		return bytes.Clone(kept[:]), nil
	}
	destroyed := s.destroyed
	s.mu.Unlock()
	stored, wrap, err := s.wrapper(name)
	if err != nil {
		return nil, err
	}
	record, err := s.wrapped.Get(ctx, stored)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no key %q", ErrOpen, name)
	}
	if err != nil {
		return nil, fmt.Errorf("read key %q: %w", name, err)
	}
	_, k, err := wrap.open(record)
	if err != nil {
		return nil, damaged(stored, err)
	}
	defer clear(k.secret[:])
	derived, err := k.derive(sealUse)
	if err != nil {
		return nil, fmt.Errorf("derive a key: %w", err)
	}
	s.remember(name, derived, destroyed)
	return derived, nil
}

// remember keeps a derived key, unless one was destroyed since the caller looked, which may be this one.
func (s *Safe) remember(name string, derived []byte, destroyed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.destroyed != destroyed {
		return
	}
	if len(s.cache) >= maxSafeCache {
		for _, kept := range s.cache {
			clear(kept[:])
		}
		clear(s.cache)
	}
	s.cache[name] = (*[keySize]byte)(bytes.Clone(derived))
}
