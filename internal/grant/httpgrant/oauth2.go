package httpgrant

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/internal/manifest"
	"sallyport/internal/outbound"
	"sallyport/internal/problem"
)

// Limits of getting tokens.
const (
	maxTokenAnswer = 64 << 10 // bytes
	maxToken       = 8 << 10  // bytes
	// defaultLife is how long a token is used whose issuer does not say; maxLife is the longest in any case.
	defaultLife, maxLife = 5 * time.Minute, 24 * time.Hour
	// early is how long before its end a token is no longer used: it has to live until the service looks at it.
	early = 20 * time.Second
)

// tokens keeps the token of an OAuth2 grant of client credentials (RFC 6749, section 4.4) until shortly before its end.
type tokens struct {
	lock    chan struct{} // made by the first use; whoever gets a token holds it, and others wait for that one
	token   string
	expires time.Time
	from    [2]string // client and secret that it was got with
}

// get returns a token for the client and secret of m. refused is a token that the service did not take.
func (t *tokens) get(ctx context.Context, d *Door, m *material, refused string) (string, error) {
	lock := d.tokenLock()
	select {
	case lock <- struct{}{}:
		defer func() { <-lock }()
	case <-ctx.Done():
		return "", d.failure(ctx.Err(), nil)
	}
	from := [2]string{m.texts[0], m.texts[1]}
	now := d.now()
	if t.token != "" && t.token != refused && t.from == from && now.Before(t.expires) {
		return t.token, nil
	}
	token, life, err := d.fetchToken(ctx, m)
	if err != nil {
		return "", err
	}
	t.token, t.from, t.expires = token, from, now.Add(life-min(early, life/2))
	return token, nil
}

func (d *Door) tokenLock() chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tokens.lock == nil {
		d.tokens.lock = make(chan struct{}, 1)
	}
	return d.tokens.lock
}

// tokenAnswer is what is read of an answer of a token endpoint.
type tokenAnswer struct {
	Token   string  `json:"access_token"`
	Type    string  `json:"token_type"`
	Expires float64 `json:"expires_in"`
}

// fetchToken gets a token over connections under the same rules as the service's.
func (d *Door) fetchToken(ctx context.Context, m *material) (string, time.Duration, error) {
	o := d.grant.Auth.OAuth2
	refused := func(format string, args ...any) *problem.Error {
		return problem.New(problem.FunctionFailed, "fetch.token_refused", "grant %q: no token from the issuer: "+format, append([]any{d.name}, args...)...).
			WithHint("look at client_id, client_secret, scopes and audience of the grant")
	}
	req, err := d.tokenRequest(ctx, o, m)
	if err != nil {
		return "", 0, refused("%v", err)
	}
	answer, err := m.route.tokens(d, req)
	if err != nil {
		return "", 0, d.failure(err, m)
	}
	var got tokenAnswer
	switch {
	case answer.Status >= http.StatusInternalServerError || answer.Status == http.StatusTooManyRequests:
		p := refused("it answers %d", answer.Status)
		p.Kind = problem.Unavailable
		return "", 0, p
	case answer.Status != http.StatusOK:
		return "", 0, refused("it answers %d", answer.Status)
	case json.Unmarshal(answer.Body, &got) != nil || got.Token == "" || len(got.Token) > maxToken:
		return "", 0, refused("its answer is not one of RFC 6749")
	case !strings.EqualFold(got.Type, "bearer"):
		return "", 0, refused("the token is of another type than Bearer")
	}
	life := defaultLife
	if got.Expires > 0 {
		life = time.Duration(min(got.Expires, maxLife.Seconds()) * float64(time.Second))
	}
	return got.Token, life, nil
}

func (d *Door) tokenRequest(ctx context.Context, o *manifest.HTTPOAuth2, m *material) (*http.Request, error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	if len(o.Scopes) > 0 {
		form.Set("scope", strings.Join(o.Scopes, " "))
	}
	if o.Audience != "" {
		form.Set("audience", o.Audience)
	}
	if o.ClientAuth == manifest.OAuth2Body {
		form.Set("client_id", m.texts[0])
		form.Set("client_secret", m.texts[1])
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.TokenURL, io.Reader(strings.NewReader(form.Encode())))
	if err != nil {
		return nil, err
	}
	if o.ClientAuth != manifest.OAuth2Body {
		// Both are encoded like a form first: RFC 6749, section 2.3.1.
		req.SetBasicAuth(url.QueryEscape(m.texts[0]), url.QueryEscape(m.texts[1]))
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	return req, nil
}

// tokens sends a request to the issuer of tokens. The connection is not kept: tokens are got rarely.
func (r *route) tokens(d *Door, req *http.Request) (*outbound.Answer, error) {
	cfg, err := d.routeConfig(r.key[0], r.key[1], r.key[2])
	if err != nil {
		return nil, err
	}
	cfg.MaxBytes, cfg.Plain = maxTokenAnswer, false
	out, err := outbound.NewRoute(*cfg)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	return out.Exchange(req)
}
