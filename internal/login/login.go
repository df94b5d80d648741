// Package login gets tokens from an OpenID Connect issuer for a person at a command line: by the browser (authorization code with
// PKCE, on a loopback address) or by a code that is typed elsewhere (device code), and again by a refresh token.
//
// It keeps nothing. It believes the issuer's answers no further than it must: addresses are https ones, sizes and times are
// bounded (package outbound), and what comes back to the loopback address is taken once, with the state that was sent out.
//
// Caller: cli.
//
// Sources: RFC 6749, RFC 7636 (PKCE), RFC 8252 (native programs), RFC 8628 (device code), RFC 9207 (issuer in the answer).
package login

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/internal/outbound"
)

const (
	// defaultPause and maxPause bound how often it is asked whether a code was typed.
	defaultPause = 5 * time.Second
	maxPause     = time.Minute
	// maxWait bounds how long a person may take.
	maxWait = 15 * time.Minute
	// maxLifetime bounds what an issuer may say of a token's life.
	maxLifetime = 30 * 24 * time.Hour
)

// ErrEnded is wrapped by the error of a refresh that the issuer refuses: the person has to log in again.
var ErrEnded = errors.New("the issuer ended the session")

// Config says where and as what to log in.
type Config struct {
	Issuer, ClientID string
	Scopes           []string
	Audience         string // a parameter of that name, for issuers that want it; may be empty
	// IDToken takes the id token, for issuers whose access tokens only they can read.
	IDToken bool
}

// Tokens are what an issuer gave.
type Tokens struct {
	Token, Refresh string
	Expires        time.Time
}

// Issuer is an issuer whose discovery document was read.
type Issuer struct {
	cfg       Config
	client    *outbound.Client
	endpoints endpoints
}

type endpoints struct {
	Issuer        string   `json:"issuer"`
	Authorization string   `json:"authorization_endpoint"`
	Token         string   `json:"token_endpoint"`
	Device        string   `json:"device_authorization_endpoint"`
	Revocation    string   `json:"revocation_endpoint"`
	Challenges    []string `json:"code_challenge_methods_supported"`
	NamesItself   bool     `json:"authorization_response_iss_parameter_supported"`
}

// Open reads the discovery document of an issuer.
func Open(ctx context.Context, cfg Config, client *outbound.Client) (*Issuer, error) {
	if _, err := outbound.ParseURL(cfg.Issuer); err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	a, err := client.Get(ctx, strings.TrimSuffix(cfg.Issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return nil, fmt.Errorf("ask the issuer: %w", err)
	}
	i := &Issuer{cfg: cfg, client: client}
	if a.Status != http.StatusOK || json.Unmarshal(a.Body, &i.endpoints) != nil || i.endpoints.Issuer != cfg.Issuer {
		return nil, fmt.Errorf("there is no issuer at %s", cfg.Issuer)
	}
	return i, nil
}

// form returns what each request to the issuer has.
func (i *Issuer) form(more map[string]string) url.Values {
	f := url.Values{"client_id": {i.cfg.ClientID}}
	for k, v := range more {
		f.Set(k, v)
	}
	return f
}

func (i *Issuer) scoped(more map[string]string) url.Values {
	f := i.form(more)
	f.Set("scope", strings.Join(i.cfg.Scopes, " "))
	if i.cfg.Audience != "" {
		f.Set("audience", i.cfg.Audience)
	}
	return f
}

// answer is what a token endpoint answers.
type answer struct {
	Access    string  `json:"access_token"`
	ID        string  `json:"id_token"`
	Refresh   string  `json:"refresh_token"`
	ExpiresIn float64 `json:"expires_in"`
	Error     string  `json:"error"`
}

// refusal is an error code that an issuer answered, such as access_denied.
type refusal string

// Error says what the issuer answered. Codes are of RFC 6749; what else it says goes nowhere.
func (r refusal) Error() string {
	code := strings.Map(func(c rune) rune {
		if 'a' <= c && c <= 'z' || c == '_' {
			return c
		}
		return -1
	}, string(r))
	return "the issuer answered " + code[:min(len(code), 64)]
}

// token asks the token endpoint.
func (i *Issuer) token(ctx context.Context, form url.Values) (*Tokens, error) {
	a, err := i.client.PostForm(ctx, i.endpoints.Token, form)
	if err != nil {
		return nil, fmt.Errorf("ask the issuer for a token: %w", err)
	}
	var got answer
	if err := json.Unmarshal(a.Body, &got); err != nil {
		return nil, fmt.Errorf("the issuer answered %d, and no JSON", a.Status)
	}
	switch {
	case got.Error != "":
		return nil, refusal(got.Error)
	case a.Status != http.StatusOK:
		return nil, fmt.Errorf("the issuer answered %d", a.Status)
	}
	out := &Tokens{Token: got.Access, Refresh: got.Refresh}
	if i.cfg.IDToken {
		out.Token = got.ID
	}
	if out.Token == "" {
		return nil, errors.New("the issuer answered without the token")
	}
	life := time.Duration(min(max(got.ExpiresIn, 0), maxLifetime.Seconds())) * time.Second
	out.Expires = time.Now().Add(life)
	return out, nil
}

// Refresh gets a new token by a refresh token. Issuers may give another refresh token with it; the one before has then ended.
func (i *Issuer) Refresh(ctx context.Context, refresh string) (*Tokens, error) {
	got, err := i.token(ctx, i.form(map[string]string{"grant_type": "refresh_token", "refresh_token": refresh}))
	if r, ok := errors.AsType[refusal](err); ok && r == "invalid_grant" {
		return nil, fmt.Errorf("%w: %w", ErrEnded, err)
	}
	if err == nil && got.Refresh == "" {
		got.Refresh = refresh
	}
	return got, err
}

// Revoke ends a refresh token at the issuer, if it lets that be done.
func (i *Issuer) Revoke(ctx context.Context, refresh string) error {
	if i.endpoints.Revocation == "" {
		return nil
	}
	a, err := i.client.PostForm(ctx, i.endpoints.Revocation, i.form(map[string]string{"token": refresh, "token_type_hint": "refresh_token"}))
	if err == nil && a.Status != http.StatusOK {
		err = fmt.Errorf("the issuer answered %d", a.Status)
	}
	return err
}

// Device gets a token by a code that the person types elsewhere; show tells them where, and the code.
func (i *Issuer) Device(ctx context.Context, show func(url, code string)) (*Tokens, error) {
	if i.endpoints.Device == "" {
		return nil, errors.New("the issuer has no log-in by code")
	}
	a, err := i.client.PostForm(ctx, i.endpoints.Device, i.scoped(nil))
	if err != nil {
		return nil, fmt.Errorf("ask the issuer for a code: %w", err)
	}
	var d struct {
		Device   string  `json:"device_code"`
		User     string  `json:"user_code"`
		URL      string  `json:"verification_uri"`
		Interval float64 `json:"interval"`
	}
	if a.Status != http.StatusOK || json.Unmarshal(a.Body, &d) != nil || d.Device == "" || d.User == "" {
		return nil, fmt.Errorf("the issuer answered %d, and no code", a.Status)
	}
	if _, err := outbound.ParseURL(d.URL); err != nil {
		return nil, errors.New("the issuer answered with an address that is not https")
	}
	show(d.URL, d.User)
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	pause := defaultPause
	if d.Interval >= 1 && d.Interval <= maxPause.Seconds() {
		pause = time.Duration(d.Interval) * time.Second
	}
	form := i.form(map[string]string{"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": d.Device})
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
		got, err := i.token(ctx, form)
		switch r, _ := errors.AsType[refusal](err); r {
		case "authorization_pending":
		case "slow_down":
			pause = min(pause+defaultPause, maxPause)
		default:
			return got, err
		}
	}
}

// secret returns a value that nobody guesses.
func secret() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
