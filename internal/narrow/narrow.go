// Package narrow is the form of narrowed tokens: what the holder of a token makes of it, without asking the server, to hand
// on less than it has.
//
// A narrowed token is a chain of blocks. Each has caveats, which must all hold, and the public key of the block after it,
// and is signed with the private key that belongs to the block before; the first with a key that follows from the text of
// the server's own token. With the chain goes the private key of its end, so that whoever holds it can add a block. To take a
// block away needs the key before it, which is not in the token and cannot be made from it: a chain only narrows.
//
// Who checks a chain needs the first public key alone, so a store that is stolen makes no token: decisions/0011.
//
// It does no I/O and reads no clock. Callers: access (Parse, Verify), cli (Narrow).
package narrow

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/internal/ident"
)

// Prefix begins the text of a narrowed token.
const Prefix = "sn_"

// Limits of a narrowed token.
const (
	MaxCaveats = 16
	maxBytes   = 4 << 10 // decoded
	maxValues  = 64      // of one caveat
	maxAction  = 32      // bytes
	// maxTime is the latest end that a caveat may name, in seconds since 1970: the year 9999.
	maxTime = 253402300799
)

// MaxText bounds the text of a narrowed token, in bytes.
const MaxText = len(Prefix) + (maxBytes*4+2)/3

const (
	version  = 1
	idBytes  = 8
	overhead = 2 + ed25519.PublicKeySize + ed25519.SignatureSize // of a block, beside its caveats
	// basePrefix and baseID are the form of the server's own tokens, as far as it matters here.
	basePrefix = "sp_"
	domain     = "sallyport narrowed token 1\x00"
)

// ErrMalformed is wrapped by the errors of this package.
var ErrMalformed = errors.New("malformed token")

// Caveats narrow what a token may be used for. Each that is there must hold, and within one, one of its values.
type Caveats struct {
	// Types are event types; one that ends in * stands for all that begin so. A token with this caveat publishes these
	// types, and does nothing else.
	Types []string `json:"types,omitempty"`
	// Addresses are networks, in CIDR form, that the client's address must be in.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	// Actions are those that it may be used for.
	Actions []string `json:"actions,omitempty"`
	// Expires is when it ends, in seconds since 1970; 0 is when the token ends that it was made of.
	Expires int64 `json:"expires,omitempty"`
}

// count returns how many caveats there are.
func (c *Caveats) count() int {
	n := 0
	for _, there := range []bool{len(c.Types) > 0, len(c.Addresses) > 0, len(c.Actions) > 0, c.Expires != 0} {
		if there {
			n++
		}
	}
	return n
}

// Validate reports what is wrong with c.
func (c *Caveats) Validate() error {
	if c.count() == 0 {
		return fmt.Errorf("%w: no caveat", ErrMalformed)
	}
	if len(c.Types) > maxValues || len(c.Addresses) > maxValues || len(c.Actions) > maxValues {
		return fmt.Errorf("%w: a caveat has more than %d values", ErrMalformed, maxValues)
	}
	for _, t := range c.Types {
		if t == "*" {
			continue
		}
		if _, err := ident.ParseEventType(strings.TrimSuffix(t, "*")); err != nil {
			return err
		}
	}
	for _, a := range c.Addresses {
		if !a.IsValid() || a != a.Masked() || a.Addr().Is4In6() || a.Addr().Zone() != "" {
			return fmt.Errorf("%w: %v is not the address of a network", ErrMalformed, a)
		}
	}
	for _, a := range c.Actions {
		if a == "" || len(a) > maxAction || strings.ContainsFunc(a, func(r rune) bool { return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z') }) {
			return fmt.Errorf("%w: %q is not the name of an action", ErrMalformed, a)
		}
	}
	if c.Expires < 0 || c.Expires > maxTime {
		return fmt.Errorf("%w: the end is out of range", ErrMalformed)
	}
	return nil
}

// block is one link of a chain.
type block struct {
	caveats   []byte // as they are signed
	next      ed25519.PublicKey
	signature []byte
}

// Token is a parsed chain. Nothing of it is believed before Verify.
type Token struct {
	// ID is that of the token that the chain was made of.
	ID string
	// Caveats are those of all blocks.
	Caveats []Caveats

	id     [idBytes]byte
	blocks []block
	seed   []byte
}

// seedOf returns what the first key of a token follows from. Only who has the token's whole text can make it.
func seedOf(text string) []byte {
	mac := hmac.New(sha256.New, []byte(text))
	mac.Write([]byte("sallyport token narrowing 1"))
	return mac.Sum(nil)
}

// Key returns the public key that chains made of a token are checked with.
func Key(text string) ed25519.PublicKey {
	return ed25519.NewKeyFromSeed(seedOf(text)).Public().(ed25519.PublicKey)
}

// Narrow returns a token that is narrower than text by c. text is one of the server's own, or a narrowed one.
func Narrow(text string, c Caveats) (string, error) {
	if err := c.Validate(); err != nil {
		return "", err
	}
	t, err := begin(text)
	if err != nil {
		return "", err
	}
	caveats, err := json.Marshal(&c)
	if err != nil {
		return "", fmt.Errorf("encode caveats: %w", err)
	}
	public, next, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	b := block{caveats: caveats, next: public}
	b.signature = ed25519.Sign(ed25519.NewKeyFromSeed(t.seed), t.signed(len(t.blocks), &b))
	t.blocks, t.Caveats, t.seed = append(t.blocks, b), append(t.Caveats, c), next.Seed()
	out := t.encode()
	if _, err := Parse(out); err != nil { // too many caveats, or too long
		return "", err
	}
	return out, nil
}

// begin returns the chain that a new block goes to: an empty one for one of the server's own tokens.
func begin(text string) (*Token, error) {
	if strings.HasPrefix(text, Prefix) {
		return Parse(text)
	}
	rest, ok := strings.CutPrefix(text, basePrefix)
	id, _, found := strings.Cut(rest, "_")
	raw, err := hex.DecodeString(id)
	if !ok || !found || err != nil || len(raw) != idBytes {
		return nil, fmt.Errorf("%w: only a token of the server's own (sp_…) or a narrowed one can be narrowed", ErrMalformed)
	}
	return &Token{ID: id, id: [idBytes]byte(raw), seed: seedOf(text)}, nil
}

// signed returns what the signature of block n is of: everything before it by the signature before it.
func (t *Token) signed(n int, b *block) []byte {
	out := append([]byte(domain), t.id[:]...)
	if n > 0 {
		out = append(out, t.blocks[n-1].signature...)
	}
	out = binary.BigEndian.AppendUint16(out, uint16(len(b.caveats)))
	out = append(out, b.caveats...)
	return append(out, b.next...)
}

func (t *Token) encode() string {
	raw := append([]byte{version}, t.id[:]...)
	raw = append(raw, byte(len(t.blocks)))
	for i := range t.blocks {
		b := &t.blocks[i]
		raw = binary.BigEndian.AppendUint16(raw, uint16(len(b.caveats)))
		raw = append(append(append(raw, b.caveats...), b.next...), b.signature...)
	}
	return Prefix + base64.RawURLEncoding.EncodeToString(append(raw, t.seed...))
}

// Parse parses a narrowed token strictly.
func Parse(text string) (*Token, error) {
	rest, ok := strings.CutPrefix(text, Prefix)
	if !ok || len(text) > MaxText || strings.ContainsAny(rest, "\r\n") {
		return nil, ErrMalformed
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(rest)
	if err != nil || len(raw) < 1+idBytes+1+ed25519.SeedSize || len(raw) > maxBytes || raw[0] != version {
		return nil, ErrMalformed
	}
	t := &Token{id: [idBytes]byte(raw[1:]), ID: hex.EncodeToString(raw[1 : 1+idBytes])}
	n, raw := int(raw[1+idBytes]), raw[1+idBytes+1:]
	if n < 1 || n > MaxCaveats {
		return nil, ErrMalformed
	}
	caveats := 0
	for range n {
		if raw, err = t.block(raw); err != nil {
			return nil, err
		}
		if caveats += t.Caveats[len(t.Caveats)-1].count(); caveats > MaxCaveats {
			return nil, fmt.Errorf("%w: more than %d caveats", ErrMalformed, MaxCaveats)
		}
	}
	if len(raw) != ed25519.SeedSize {
		return nil, ErrMalformed
	}
	t.seed = raw
	return t, nil
}

// block parses one block, and returns what follows it.
func (t *Token) block(raw []byte) ([]byte, error) {
	if len(raw) < overhead {
		return nil, ErrMalformed
	}
	size := int(binary.BigEndian.Uint16(raw))
	if len(raw) < overhead+size {
		return nil, ErrMalformed
	}
	b := block{caveats: raw[2 : 2+size]}
	raw = raw[2+size:]
	b.next, raw = raw[:ed25519.PublicKeySize], raw[ed25519.PublicKeySize:]
	b.signature, raw = raw[:ed25519.SignatureSize], raw[ed25519.SignatureSize:]
	var c Caveats
	if err := json.Unmarshal(b.caveats, &c, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%w: caveats cannot be read", ErrMalformed)
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	t.blocks, t.Caveats = append(t.blocks, b), append(t.Caveats, c)
	return raw, nil
}

// Verify reports whether the chain was made, block by block, from the token that key is of (Key).
func (t *Token) Verify(key ed25519.PublicKey) bool {
	if len(key) != ed25519.PublicKeySize || len(t.blocks) == 0 {
		return false
	}
	for n := range t.blocks {
		b := &t.blocks[n]
		if !ed25519.Verify(key, t.signed(n, b), b.signature) {
			return false
		}
		key = b.next
	}
	return key.Equal(ed25519.NewKeyFromSeed(t.seed).Public())
}

// Ends returns when the first caveat ends the token, the zero time when none does.
func (t *Token) Ends() time.Time {
	var end time.Time
	for i := range t.Caveats {
		if s := t.Caveats[i].Expires; s != 0 && (end.IsZero() || time.Unix(s, 0).Before(end)) {
			end = time.Unix(s, 0)
		}
	}
	return end
}

// From reports whether the client's address is one that c allows.
func (c *Caveats) From(ip netip.Addr) bool {
	if len(c.Addresses) == 0 {
		return true
	}
	ip = ip.Unmap().WithZone("")
	for _, p := range c.Addresses {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// Action reports whether c allows an action.
func (c *Caveats) Action(name string) bool {
	if len(c.Actions) == 0 {
		return true
	}
	for _, a := range c.Actions {
		if a == name {
			return true
		}
	}
	return false
}

// Type reports whether c allows to publish an event type.
func (c *Caveats) Type(name string) bool {
	if len(c.Types) == 0 {
		return true
	}
	for _, t := range c.Types {
		begin, open := strings.CutSuffix(t, "*")
		if t == name || open && strings.HasPrefix(name, begin) {
			return true
		}
	}
	return false
}
