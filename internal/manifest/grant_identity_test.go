package manifest_test

import (
	"slices"
	"testing"

	"sallyport/internal/manifest"
)

// TestIdentityReaches: another audience is another thing that is reached, so a plan shows it.
func TestIdentityReaches(t *testing.T) {
	t.Parallel()
	g := manifest.Grant{Identity: &manifest.IdentityGrant{Audience: "sts.example.com"}}
	if got := g.Reaches(); g.Kind() != manifest.KindIdentity || !slices.Equal(got, []string{"identity for sts.example.com"}) {
		t.Errorf("%s reaches %q", g.Kind(), got)
	}
}
