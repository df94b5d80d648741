package narrow_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sallyport/internal/narrow"
)

var base = "sp_0123456789abcdef_" + strings.Repeat("ab", 32) + "_00000000"

func must(t testing.TB, text string, c narrow.Caveats) string {
	t.Helper()
	out, err := narrow.Narrow(text, c)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func network(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }

func TestNarrow(t *testing.T) {
	t.Parallel()
	caveats := []narrow.Caveats{
		{Types: []string{"order.*", "a"}, Expires: 2000}, {Addresses: network("10.0.0.0/8"), Expires: 1000}, {Actions: []string{"publish"}},
	}
	text := base
	for n, c := range caveats {
		text = must(t, text, c)
		tok, err := narrow.Parse(text)
		if err != nil || !tok.Verify(narrow.Key(base)) || tok.ID != "0123456789abcdef" {
			t.Fatalf("block %d: Parse = %+v, %v", n, tok, err)
		}
		if diff := cmp.Diff(caveats[:n+1], tok.Caveats, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Errorf("block %d (-want +got):\n%s", n, diff)
		}
		if tok.Verify(narrow.Key(base + "x")) {
			t.Errorf("block %d belongs to another token too", n)
		}
	}
	tok, _ := narrow.Parse(text)
	if !tok.Ends().Equal(time.Unix(1000, 0)) {
		t.Errorf("Ends = %v; want the first of both", tok.Ends())
	}
	if strings.Contains(text, "abababab") || strings.Contains(text, base64.RawURLEncoding.EncodeToString([]byte(base))) {
		t.Error("the narrowed token holds the secret")
	}
}

// TestOnlyNarrows takes blocks and caveats away, changes them, and puts chains together anew: none is accepted.
func TestOnlyNarrows(t *testing.T) {
	t.Parallel()
	key := narrow.Key(base)
	one := must(t, base, narrow.Caveats{Actions: []string{"publish"}})
	two := must(t, one, narrow.Caveats{Types: []string{"a"}})
	other := must(t, base, narrow.Caveats{Actions: []string{"publish"}})
	raw := func(text string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(text, narrow.Prefix))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	encode := func(b []byte) string { return narrow.Prefix + base64.RawURLEncoding.EncodeToString(b) }
	r1, r2, ro := raw(one), raw(two), raw(other)
	block1 := r1[10 : len(r1)-ed25519.SeedSize]
	block2 := r2[10+len(block1) : len(r2)-ed25519.SeedSize]
	seed := r2[len(r2)-ed25519.SeedSize:]
	join := func(n byte, parts ...[]byte) string {
		out := append([]byte{1}, r1[1:9]...)
		out = append(out, n)
		for _, p := range parts {
			out = append(out, p...)
		}
		return encode(out)
	}
	for name, text := range map[string]string{
		"the last block away":      join(1, block1, seed),
		"the first block away":     join(1, block2, seed),
		"swapped":                  join(2, block2, block1, seed),
		"twice":                    join(2, block1, block1, r1[len(r1)-ed25519.SeedSize:]),
		"onto another chain":       join(2, ro[10:len(ro)-ed25519.SeedSize], block2, seed),
		"another seed":             join(1, block1, ro[len(ro)-ed25519.SeedSize:]),
		"without blocks":           join(0, seed),
		"of another token":         must(t, "sp_0123456789abcdef_"+strings.Repeat("cd", 32)+"_00000000", narrow.Caveats{Expires: 1}),
		"publish becomes publishx": encode([]byte(strings.Replace(string(r1), `"publish"`, `"publisx"`, 1))),
		"another id":               encode(append(append([]byte{1}, "\xff\xff\xff\xff\xff\xff\xff\xff"...), r1[9:]...)),
	} {
		if tok, err := narrow.Parse(text); err == nil && tok.Verify(key) {
			t.Errorf("%s: accepted with %+v", name, tok.Caveats)
		}
	}
	// Every bit counts.
	for i := range r2 {
		r2[i] ^= 1
		if tok, err := narrow.Parse(encode(r2)); err == nil && tok.Verify(key) {
			t.Errorf("accepted with byte %d changed", i)
		}
		r2[i] ^= 1
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	text := base
	for range narrow.MaxCaveats {
		text = must(t, text, narrow.Caveats{Expires: 1})
	}
	if _, err := narrow.Narrow(text, narrow.Caveats{Expires: 1}); err == nil {
		t.Error("one caveat too many")
	}
	long := strings.Repeat("x", 255)
	if _, err := narrow.Narrow(base, narrow.Caveats{Types: strings.Split(strings.Repeat(long+" ", 20)+long, " ")}); err == nil {
		t.Error("larger than 4 KiB")
	}
	for name, c := range map[string]narrow.Caveats{
		"none": {}, "bad type": {Types: []string{"a b"}}, "star within": {Types: []string{"a*b"}}, "no type": {Types: []string{""}},
		"host bits": {Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}, "no network": {Addresses: []netip.Prefix{{}}},
		"bad action": {Actions: []string{"read events"}}, "no action": {Actions: []string{""}}, "past": {Expires: -1},
		"many": {Actions: strings.Split(strings.Repeat("a,", 70)+"a", ",")},
	} {
		if out, err := narrow.Narrow(base, c); err == nil {
			t.Errorf("%s: Narrow = %q", name, out)
		}
	}
	for _, text := range []string{"", "x", "eyJhbGciOiJ9.e.s", "sp_", "sp_xyz_a", "sn_", "sn_AA", base[:10]} {
		if out, err := narrow.Narrow(text, narrow.Caveats{Expires: 1}); err == nil {
			t.Errorf("Narrow(%q) = %q", text, out)
		}
	}
}

func TestHolds(t *testing.T) {
	t.Parallel()
	c := narrow.Caveats{Types: []string{"order.*", "a"}, Addresses: network("10.0.0.0/8"), Actions: []string{"publish"}}
	var none narrow.Caveats
	for in, want := range map[string]bool{"order.x": true, "order.": true, "order": false, "a": true, "ab": false, "xorder.x": false, "": false} {
		if got := c.Type(in); got != want || !none.Type(in) {
			t.Errorf("Type(%q) = %v; want %v", in, got, want)
		}
	}
	for in, want := range map[string]bool{"10.1.2.3": true, "::ffff:10.1.2.3": true, "11.0.0.1": false, "::1": false} {
		if got := c.From(netip.MustParseAddr(in)); got != want || !none.From(netip.MustParseAddr(in)) {
			t.Errorf("From(%s) = %v; want %v", in, got, want)
		}
	}
	if c.From(netip.Addr{}) || !c.Action("publish") || c.Action("Publish") || c.Action("invoke") || !none.Action("x") {
		t.Error("an address that is not known, or another action, is allowed")
	}
}

// FuzzParse changes a chain: what is still accepted has all caveats that it had. (Keys are new in each process that fuzzes, so
// the chain itself is not the same in all of them.)
func FuzzParse(f *testing.F) {
	good := must(f, must(f, base, narrow.Caveats{Actions: []string{"publish"}}), narrow.Caveats{Expires: 1})
	key, stranger := narrow.Key(base), narrow.Key(base+"x")
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add("sn_AQ")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := narrow.Parse(text)
		if err != nil {
			return
		}
		if tok.Verify(stranger) {
			t.Errorf("Verify(%q) by another key = true", text)
		}
		if tok.Verify(key) && (len(tok.Caveats) < 2 || tok.Caveats[0].Action("invoke") || !tok.Ends().Equal(time.Unix(1, 0))) {
			t.Errorf("%q is accepted with %+v", text, tok.Caveats)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	tok, err := narrow.Parse(must(b, base, narrow.Caveats{Expires: 1}))
	if err != nil {
		b.Fatal(err)
	}
	key := narrow.Key(base)
	for b.Loop() {
		if !tok.Verify(key) {
			b.Fatal("refused")
		}
	}
}
