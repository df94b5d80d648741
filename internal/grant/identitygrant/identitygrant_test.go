package identitygrant_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"sallyport/internal/grant"
	"sallyport/internal/grant/identitygrant"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// TestDoor: a function gets tokens of its own for the audience of its grant, whatever it or its call says.
func TestDoor(t *testing.T) {
	t.Parallel()
	kind := identitygrant.Kind{Mint: func(_ context.Context, ns ident.Namespace, fn ident.FunctionName, revision int, audience string) (string, time.Time, error) {
		return fmt.Sprintf("%s/%s@%d for %s", ns, fn, revision, audience), time.Unix(1, 0).UTC(), nil
	}}
	opening := grant.Opening{Namespace: "shop", Function: "price", Revision: 7, Name: "cloud", Grant: manifest.Grant{Identity: &manifest.IdentityGrant{Audience: "sts"}}}
	door, err := kind.Open(t.Context(), opening)
	if err != nil {
		t.Fatal(err)
	}
	forged := grant.Caller{Namespace: "bank", Function: "boss", Revision: 1}
	reply, err := door.Do(t.Context(), &grant.Call{Caller: forged, Op: "token", Request: []byte(`{}`)})
	if want := `{"token":"shop/price@7 for sts","expires":"1970-01-01T00:00:01Z"}`; err != nil || string(reply.JSON) != want {
		t.Errorf("Do = %s, %v; want %s", reply.JSON, err, want)
	}
	for name, call := range map[string]grant.Call{
		"another op":       {Op: "sign"},
		"another audience": {Op: "token", Request: []byte(`{"audience":"other"}`)},
		"a body":           {Op: "token", Body: []byte("x")},
	} {
		if reply, err := door.Do(t.Context(), &call); problem.From(err).Code != "grant.identity_request" || reply.JSON != nil {
			t.Errorf("%s: %s, %v", name, reply.JSON, err)
		}
	}
	opening.Grant = manifest.Grant{Publish: []ident.EventType{"a"}}
	if _, err := kind.Open(t.Context(), opening); err == nil {
		t.Error("a grant of another kind was opened")
	}
}
