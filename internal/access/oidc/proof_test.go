package oidc_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/internal/access/oidc"
	"sallyport/internal/testkit"
)

const proofURL = "https://localhost/x"

// TestProofsForget: a proof is remembered as long as it would be good, and no longer; without room none is good.
func TestProofsForget(t *testing.T) {
	t.Parallel()
	key := testkit.NewKey(t, "EdDSA", "")
	synctest.Test(t, func(t *testing.T) {
		p := oidc.NewProofs(time.Now())
		check := func(id string, at time.Time) error {
			text := key.Proof("GET", proofURL, "t", nil, map[string]any{"jti": id, "iat": at.Unix()})
			return p.Check(&oidc.Proof{Text: text, Token: "t", Key: key.Thumbprint(), Method: "GET", Host: "localhost", Path: "/x"})
		}
		late := time.Now().Add(time.Minute)
		if err := check("a", late); err != nil {
			t.Fatal(err)
		}
		for range 24 {
			time.Sleep(5 * time.Second) // the bubble's clock
			if err := check("a", late); !errors.Is(err, oidc.ErrRefused) {
				t.Fatalf("after %v: %v; want ErrRefused", time.Since(late), err)
			}
		}
		p.Fill()
		if err := check("b", time.Now()); !errors.Is(err, oidc.ErrFull) {
			t.Errorf("without room: %v; want ErrFull", err)
		}
		time.Sleep(5 * time.Minute)
		if err := check("b", time.Now()); err != nil {
			t.Errorf("with room again: %v", err)
		}
	})
}

func FuzzProof(f *testing.F) {
	key := testkit.NewKey(f, "ES256", "")
	good := key.Proof("GET", proofURL, "t", nil, map[string]any{"jti": "1"})
	f.Add(good)
	f.Add("..")
	f.Fuzz(func(t *testing.T, text string) {
		p := oidc.NewProofs(time.Now().Add(-time.Hour))
		err := p.Check(&oidc.Proof{Text: text, Token: "t", Key: key.Thumbprint(), Method: "GET", Host: "localhost", Path: "/x"})
		if err == nil && text != good {
			t.Errorf("Check(%q) = nil", text)
		}
	})
}

func BenchmarkProof(b *testing.B) {
	key := testkit.NewKey(b, "ES256", "")
	p := oidc.NewProofs(time.Now())
	thumbprint := key.Thumbprint()
	var texts []string
	for n := range 4096 {
		texts = append(texts, key.Proof("GET", proofURL, "t", nil, map[string]any{"jti": fmt.Sprint(n)}))
	}
	n := 0
	for b.Loop() {
		err := p.Check(&oidc.Proof{Text: texts[n%len(texts)], Token: "t", Key: thumbprint, Method: "GET", Host: "localhost", Path: "/x"})
		if n++; err != nil && n <= len(texts) {
			b.Fatal(err)
		}
	}
}
