package httpgrant

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"sallyport/internal/grant"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
	"sallyport/internal/redact"
)

// material is what one request needs of secrets: it is looked up for each, so that a rotation is seen at once, and
// forgotten with it.
type material struct {
	texts []string // of the credential, in its order
	token string   // of OAuth2
	route *route   // entered
	set   *redact.Set
	once  []string // made for this request alone, such as a signature

	left sync.Once
}

// String keeps a material out of every log.
func (m *material) String() string { return redact.Mask }

// same reports whether two materials have the same credential.
func (m *material) same(o *material) bool {
	return slices.Equal(m.texts, o.texts) && m.token == o.token && m.route == o.route
}

// release leaves the route. It is idempotent.
func (m *material) release() {
	if m != nil && m.route != nil {
		m.left.Do(m.route.leave)
	}
}

// material looks the secrets up. A token that the service refused is not used again. In a rehearsal there are no connections, and
// so neither certificates that would have to be real ones, nor a token from an issuer.
func (d *Door) material(ctx context.Context, call *grant.Call, refused string, rehearsed bool) (*material, error) {
	m := &material{}
	var hide []string
	look := func(ref string) (string, error) {
		text, secret, err := d.lookUp(ctx, call, ref)
		if secret && err == nil {
			hide = append(hide, text)
		}
		return text, err
	}
	if d.credential != nil {
		for _, ref := range d.credential.refs() {
			text, err := look(ref)
			if err != nil {
				return nil, err
			}
			m.texts = append(m.texts, text)
		}
	}
	// What a certificate says is no secret, wherever it is kept.
	ca, _, err := d.lookUp(ctx, call, d.grant.CA)
	if err != nil {
		return nil, err
	}
	var cert, key string
	if c := d.grant.Auth.MTLS; c != nil {
		if cert, _, err = d.lookUp(ctx, call, c.Certificate); err != nil {
			return nil, err
		}
		if key, err = look(c.Key); err != nil {
			return nil, err
		}
	}
	if rehearsed {
		m.token = tokenStandIn
	} else if m.route, err = d.routeFor(ca, cert, key); err != nil {
		return nil, problem.New(problem.Unprocessable, "fetch.credential_unusable", "the certificates of grant %q cannot be used", d.name).WithCause(err).
			WithHint("they must be in PEM: a CA's, or a client's with the key that belongs to it")
	}
	if o := d.grant.Auth.OAuth2; o != nil && !rehearsed {
		if m.token, err = d.tokens.get(ctx, d, m, refused); err != nil {
			m.release()
			return nil, err
		}
	}
	if m.token != "" {
		hide = append(hide, m.token)
	}
	if d.credential != nil {
		hide = append(hide, d.credential.derived(m.texts)...)
	}
	m.set = d.hidden.set(&d.mu, hide)
	return m, nil
}

// lookUp returns the text that a manifest's text stands for, and whether it is a secret.
func (d *Door) lookUp(ctx context.Context, call *grant.Call, text string) (string, bool, error) {
	ref, ok := manifest.IsSecret(text)
	if !ok {
		return text, false, nil
	}
	if d.secrets == nil {
		return "", true, d.unavailable(ref, errors.New("there is no store of secrets"))
	}
	value, err := d.secrets.Value(ctx, d.namespace, ref, grant.Use{Caller: call.Caller})
	if err != nil {
		if p, ok := errors.AsType[*problem.Error](err); ok {
			return "", true, p
		}
		return "", true, d.unavailable(ref, err)
	}
	// A value that came from a file ends in a line break, as files do.
	value = bytes.TrimRight(value, "\r\n")
	if len(value) == 0 {
		return "", true, d.unavailable(ref, errors.New("the value is empty"))
	}
	return string(value), true, nil
}

func (d *Door) unavailable(ref string, cause error) error {
	return problem.New(problem.Unavailable, "fetch.credential_unavailable", "the secret %q of grant %q is not there", ref, d.name).WithCause(cause).
		WithHint("store it: sallyport secret set %s", strings.Split(ref, "@")[0])
}

// hidden remembers the set of what is hidden: it is the same for most requests.
type hidden struct {
	values []string
	last   *redact.Set
	made   bool
}

func (h *hidden) set(mu *sync.Mutex, values []string) *redact.Set {
	mu.Lock()
	defer mu.Unlock()
	if !h.made || !slices.Equal(h.values, values) {
		all := make([][]byte, len(values))
		for i, v := range values {
			all[i] = []byte(v)
		}
		h.values, h.last, h.made = values, redact.New(all...), true
	}
	return h.last
}
