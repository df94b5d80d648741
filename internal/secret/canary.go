package secret

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// decoys make values that look like the credentials of well-known services, and open nothing.
var decoys = map[string]func() string{
	"aws":      func() string { return pick(40, alphanumeric+"/+") },
	"github":   func() string { return "ghp_" + pick(36, alphanumeric) },
	"password": func() string { return pick(20, alphanumeric+"!#%-_") },
	"postgres": func() string {
		return "postgres://orders:" + pick(24, alphanumeric) + "@db-" + pick(6, lower) + ".internal:5432/orders"
	},
	"stripe": func() string { return "sk_live_" + pick(24, alphanumeric) },
}

const (
	lower        = "abcdefghijklmnopqrstuvwxyz"
	alphanumeric = lower + "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
)

// Decoys returns the names of what decoys look like.
func Decoys() []string { return slices.Sorted(maps.Keys(decoys)) }

// pick returns n random characters of an alphabet of at most 256.
func pick(n int, alphabet string) string {
	out := make([]byte, 0, n)
	most := 256 - 256%len(alphabet) // what is above would make some characters likelier
	var b [64]byte
	for len(out) < n {
		_, _ = rand.Read(b[:]) // documented to never fail
		for _, c := range b {
			if int(c) < most && len(out) < n {
				out = append(out, alphabet[int(c)%len(alphabet)])
			}
		}
	}
	clear(b[:])
	return string(out)
}

// Plant makes a canary: a new secret that nobody has a reason to use, with a decoy for its value, which it returns: it is no
// secret, and belongs wherever a thief would look.
func (s *Store) Plant(ctx context.Context, ns ident.Namespace, name ident.SecretName, like string, o Setting) (decoy string, out *Secret, err error) {
	if like == "" {
		like = "password"
	}
	make := decoys[like]
	if make == nil {
		return "", nil, invalid("there is no decoy like %q; want one of %s", like, strings.Join(Decoys(), ", "))
	}
	if _, _, err := s.find(ctx, ns, name); err == nil {
		return "", nil, problem.New(problem.Conflict, "secret.not_a_canary", "there is a secret %q already", name).WithHint("give the canary a name of its own")
	} else if !isNotFound(err) {
		return "", nil, err
	}
	decoy = make()
	o.Canary = true
	if o.Description == "" {
		o.Description = fmt.Sprintf("a decoy like %s", like)
	}
	out, err = s.set(ctx, ns, name, []byte(decoy), OriginDecoy, o)
	return decoy, out, err
}
