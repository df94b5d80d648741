// Package keyring holds the keys: it is the only package that sees one. It hands out Sealers, which
// seal and open values and compute keyed digests for one purpose in one namespace.
//
// The hierarchy is root key (a file of the operator's) → namespace key → segment keys, and in a Safe keys of single values. Each key is 32
// random bytes; each use of a key has a key of its own, derived from it with HKDF-SHA256. A key is
// kept wrapped under its parent with AES-256-GCM, bound to its namespace, purpose and number, with a
// commitment that is checked when it is unwrapped, since AES-GCM alone would let one wrapped key open
// under two parents. Values are sealed with AES-256-GCM under a random nonce, in the layout of a Tink
// AES-GCM keyset:
//
//	0x01 ‖ key id (4, big endian) ‖ nonce (12) ‖ ciphertext ‖ tag (16)
//
// Invariants. A key MUST be on disk, wrapped, before anything is sealed with it. A stored key is never
// overwritten. No segment key seals more than twice its limits, across restarts and failures. No key
// and no plain text appears in an error, in a log or in the printed form of a type of this package.
//
// It is not a secret store, and it does not know where wrapped keys are kept: the caller brings a
// Wrapped. Callers are eventlog, and server, which gives sealers to the packages that keep state.
package keyring

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// ErrOpen says that a sealed value does not open: it was altered, is in another place than it was
// sealed for, or its key is not in this keyring.
var ErrOpen = errors.New("sealed value does not open")

// ErrExhausted says that a segment key reached its hard limit because no successor could be stored.
var ErrExhausted = errors.New("segment key is used up and no new one can be stored")

// Wrapped keeps wrapped keys. They are safe to store anywhere: each is encrypted and authenticated.
// Get returns an error that is fs.ErrNotExist when there is no value of that name. Put MUST return
// only when the value is on disk; it replaces the value of that name. Names returns the names that begin with prefix.
// Delete MUST return only when the value is gone from the disk; that there is none is no error.
type Wrapped interface {
	Get(ctx context.Context, name string) ([]byte, error)
	Put(ctx context.Context, name string, value []byte) error
	Names(ctx context.Context, prefix string) ([]string, error)
	Delete(ctx context.Context, name string) error
}

// Keyring hands out sealers. It is safe for concurrent use and holds nothing to close.
type Keyring struct {
	redacted
	root    *Root
	wrapped Wrapped

	mu         sync.Mutex
	namespaces map[ident.Namespace]key
	sealers    map[sealerID]*Sealer
}

type sealerID struct {
	ns      ident.Namespace
	purpose string
}

// New returns the keyring of the keys that wrapped keeps. It fails with problem keyring.root_wrong
// when they belong to another root key, and keyring.root_missing when root was not found where it
// should be although keys exist. A root that is new is written to its file here.
func New(ctx context.Context, root *Root, wrapped Wrapped) (*Keyring, error) {
	if err := root.verify(ctx, wrapped); err != nil {
		return nil, err
	}
	return &Keyring{
		root:       root,
		wrapped:    wrapped,
		namespaces: map[ident.Namespace]key{},
		sealers:    map[sealerID]*Sealer{},
	}, nil
}

// MaxPurposeLength bounds the name of a purpose, in bytes: it is part of a storage key.
const MaxPurposeLength = 128

// Sealer returns the sealer of purpose in namespace ns; the empty namespace is the server's own. The
// same pair gives the same Sealer. Its keys are made when they do not exist yet. A purpose consists of
// lower-case letters, digits and the characters . _ - and /.
func (k *Keyring) Sealer(ctx context.Context, ns ident.Namespace, purpose string) (*Sealer, error) {
	if err := checkPurpose(purpose); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	id := sealerID{ns, purpose}
	if s := k.sealers[id]; s != nil {
		return s, nil
	}
	parent, err := k.namespaceKey(ctx, ns)
	if err != nil {
		return nil, err
	}
	s, err := newSealer(ctx, k.wrapped, parent, place{ns: ns, purpose: purpose})
	if err != nil {
		return nil, err
	}
	k.sealers[id] = s
	return s, nil
}

// namespaceKey returns the key of ns and makes it when it does not exist. k.mu is held.
func (k *Keyring) namespaceKey(ctx context.Context, ns ident.Namespace) (key, error) {
	if found, ok := k.namespaces[ns]; ok {
		return found, nil
	}
	wrap, err := newWrapper(k.root.key, levelNamespace, place{ns: ns})
	if err != nil {
		return key{}, err
	}
	name := namespaceName(ns)
	record, err := k.wrapped.Get(ctx, name)
	var made key
	switch {
	case err == nil:
		_, made, err = wrap.open(record)
		if err != nil {
			return key{}, damaged(name, err)
		}
	case errors.Is(err, fs.ErrNotExist):
		made = newKey()
		record, err = wrap.seal(header{id: 1, created: now()}, made)
		if err != nil {
			return key{}, err
		}
		if err = k.wrapped.Put(ctx, name, record); err != nil {
			return key{}, fmt.Errorf("store the key of namespace %q: %w", ns, err)
		}
	default:
		return key{}, fmt.Errorf("read the key of namespace %q: %w", ns, err)
	}
	k.namespaces[ns] = made
	return made, nil
}

// Destroy ends the keys of a namespace: whatever was sealed in it is unreadable from then on, wherever it still is. The key of
// the namespace goes first and the others after; what a crash leaves undone, Destroy does when it is called again. The
// sealers of the namespace MUST NOT be in use any more; Sealer makes others, with other keys.
func (k *Keyring) Destroy(ctx context.Context, ns ident.Namespace) error {
	if ns == "" {
		return errors.New("BUG: the server's own keys are not to be destroyed")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.namespaces, ns)
	for id := range k.sealers {
		if id.ns == ns {
			delete(k.sealers, id)
		}
	}
	if err := k.wrapped.Delete(ctx, namespaceName(ns)); err != nil {
		return fmt.Errorf("destroy the key of namespace %q: %w", ns, err)
	}
	names, err := k.wrapped.Names(ctx, segmentPrefix(ns))
	if err != nil {
		return fmt.Errorf("list the segment keys of namespace %q: %w", ns, err)
	}
	values, err := k.wrapped.Names(ctx, "value/"+spaceName(ns)+"/")
	if err != nil {
		return fmt.Errorf("list the value keys of namespace %q: %w", ns, err)
	}
	for _, name := range append(names, values...) {
		if err := k.wrapped.Delete(ctx, name); err != nil {
			return fmt.Errorf("destroy the segment keys of namespace %q: %w", ns, err)
		}
	}
	return nil
}

func checkPurpose(purpose string) error {
	if purpose == "" || len(purpose) > MaxPurposeLength {
		return fmt.Errorf("purpose is %d bytes long, want 1 to %d", len(purpose), MaxPurposeLength)
	}
	for i := range len(purpose) {
		switch c := purpose[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '_', c == '-', c == '/':
		default:
			return fmt.Errorf("purpose %q has the character %q", purpose, c)
		}
	}
	return nil
}

func damaged(name string, cause error) error {
	return problem.New(problem.Internal, "keyring.key_damaged", "the wrapped key %q does not open under its parent key", name).
		WithHint("the data directory was altered or restored in part: restore it whole from a backup").
		WithCause(cause)
}

// redacted keeps types that hold keys from showing them: it is embedded, and its methods are what fmt
// and slog call.
type redacted struct{}

const redactedText = "[redacted]"

// String hides the value.
func (redacted) String() string { return redactedText }

// GoString hides the value.
func (redacted) GoString() string { return redactedText }

// LogValue hides the value.
func (redacted) LogValue() slog.Value { return slog.StringValue(redactedText) }
