package ident_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/ident"
)

func TestParseSecretRef(t *testing.T) {
	t.Parallel()
	hexVersion := strings.Repeat("0123456789abcdef", 2)
	for in, want := range map[string]ident.SecretRef{
		"secret:stripe-key":                 {Store: "secret", Name: "stripe-key"},
		"secret:k@1":                        {Store: "secret", Name: "k", Version: "1"},
		"secret:k@previous":                 {Store: "secret", Name: "k", Version: "previous"},
		"secret:k@pending":                  {Store: "secret", Name: "k", Version: "pending"},
		"vault:kv/shop/stripe#key":          {Store: "vault", Name: "kv/shop/stripe", Field: "key"},
		"vault:kv/a#b@12":                   {Store: "vault", Name: "kv/a", Field: "b", Version: "12"},
		"keyvault:Stripe-Key":               {Store: "keyvault", Name: "Stripe-Key"},
		"keyvault:stripe-key@" + hexVersion: {Store: "keyvault", Name: "stripe-key", Version: hexVersion},
	} {
		got, err := ident.ParseSecretRef(in)
		if err != nil {
			t.Errorf("ParseSecretRef(%q): %v", in, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ParseSecretRef(%q) (-want +got):\n%s", in, diff)
		}
		if got.String() != in {
			t.Errorf("String = %q, want %q", got, in)
		}
	}
	for _, in := range []string{
		"", "secret", "stripe-key", "secret:", "secret:K", "secret:a b", "secret:a@", "secret:a@0", "secret:a@01", "secret:a@-1", "secret:a@x",
		"secret:a@1000000001", "secret:a@previous@1", "secret:a#b", "vault:kv", "vault:kv/a", "vault:kv/a#", "vault:/a#b", "vault:kv/../a#b",
		"vault:kv//a#b", "vault:kv/a%2f#b", "vault:kv/a?x#b", "vault:kv/a#b#c", "vault:kv/a#b@previous", "keyvault:a_b", "keyvault:a/b",
		"keyvault:a@1", "other:a", "SECRET:a", "secret:a\n", "secret:" + strings.Repeat("a", 300),
	} {
		if got, err := ident.ParseSecretRef(in); !errors.Is(err, ident.ErrMalformed) || got != (ident.SecretRef{}) {
			t.Errorf("ParseSecretRef(%q) = %+v, %v; want ErrMalformed", in, got, err)
		}
	}
}

func FuzzParseSecretRef(f *testing.F) {
	for _, s := range []string{"secret:a@1", "vault:kv/a/b#c@2", "keyvault:a@0123456789abcdef0123456789abcdef", "secret:a@previous"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ident.ParseSecretRef(s)
		if err != nil {
			return
		}
		if r.String() != s {
			t.Fatalf("ParseSecretRef(%q).String() = %q", s, r)
		}
		if strings.Contains(r.Name, "..") && strings.Contains(r.Name, "/../") || strings.ContainsAny(s, " \n\r\"%?\\") {
			t.Fatalf("%q was accepted", s)
		}
	})
}
