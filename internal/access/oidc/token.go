package oidc

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Limits of what is in a token.
const (
	maxSubject   = 255 // bytes; OpenID Connect Core, section 2
	maxKeyID     = 256 // bytes
	maxAudiences = 64
	maxGroups    = 512
	maxText      = 512 // bytes, of a group, a role, a tenant
	maxPath      = 8   // names in the path of a claim
	// maxTime is the latest time a claim may name, in seconds since 1970: the year 9999.
	maxTime = 253402300799
)

// header is the protected header. What is not here is ignored, as RFC 7515 wants it, but for what is in
// refusedHeaders.
type header struct {
	Algorithm string  `json:"alg"`
	KeyID     string  `json:"kid"`
	Type      *string `json:"typ"`
	Rest      object  `json:",embed"`
}

// refusedHeaders are members that would have a verifier take a key from the token or from an address in it,
// that make the token another thing than a plain JWS, or that must be understood.
var refusedHeaders = []string{"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc", "epk", "apu", "apv", "p2s", "p2c", "cty"}

// typ returns the type without the prefix that RFC 7515 lets be left out, in the spelling of the
// configuration, and "" when there is none.
func (h *header) typ() string {
	if h.Type == nil {
		return ""
	}
	typ := *h.Type
	const prefix = "application/"
	if len(typ) > len(prefix) && strings.EqualFold(typ[:len(prefix)], prefix) {
		typ = typ[len(prefix):]
	}
	switch {
	case strings.EqualFold(typ, "JWT"):
		return "JWT"
	case strings.EqualFold(typ, "at+jwt"):
		return "at+jwt"
	case typ == "":
		return "empty" // which is not the same as none
	}
	return typ
}

// claims are those that are checked or used.
type claims struct {
	Issuer       string        `json:"iss"`
	Subject      string        `json:"sub"`
	Audience     texts         `json:"aud"`
	Expires      *seconds      `json:"exp"`
	NotBefore    *seconds      `json:"nbf"`
	IssuedAt     *seconds      `json:"iat"`
	AuthTime     *seconds      `json:"auth_time"`
	ACR          string        `json:"acr"`
	AMR          []string      `json:"amr"`
	Party        string        `json:"azp"`
	Client       string        `json:"client_id"`
	Confirmation *confirmation `json:"cnf"`
	Rest         object        `json:",embed"`
}

// object is a JSON object whose members are not looked at yet.
type object = map[string]jsontext.Value

// confirmation says what the caller must prove to have. A way to prove it that is not known here cannot be
// checked, so it is refused.
type confirmation struct {
	Thumbprint    string `json:"x5t#S256"`
	KeyThumbprint string `json:"jkt"`
}

// seconds is a NumericDate.
type seconds float64

// UnmarshalJSON implements json.Unmarshaler.
func (s *seconds) UnmarshalJSON(b []byte) error {
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	if math.IsNaN(f) || f < 0 || f > maxTime {
		return errors.New("time is out of range")
	}
	*s = seconds(f)
	return nil
}

func (s seconds) at() time.Time { return time.Unix(int64(s), 0) }

// texts is one text or a list of them.
type texts []string

// UnmarshalJSON implements json.Unmarshaler.
func (t *texts) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		*t = make(texts, 1)
		return json.Unmarshal(b, &(*t)[0])
	}
	return json.Unmarshal(b, (*[]string)(t))
}

// parsed is a token of which nothing is believed yet.
type parsed struct {
	header    header
	claims    claims
	input     string // what is signed
	signature []byte
}

var (
	errForm = errors.New("form is not that of a token")
	errJSON = errors.New("not the JSON of a token")
)

// parse parses a token strictly, and believes nothing of it.
func parse(text string) (*parsed, error) {
	if len(text) > MaxToken {
		return nil, fmt.Errorf("%w: longer than %d bytes", errForm, MaxToken)
	}
	if strings.Count(text, ".") != 2 { // a JWE has five parts
		return nil, errForm
	}
	head, rest, _ := strings.Cut(text, ".")
	body, signature, _ := strings.Cut(rest, ".")
	t := &parsed{input: text[:len(head)+1+len(body)]}
	if err := decode(head, &t.header); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if err := t.header.validate(); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if err := decode(body, &t.claims); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	if len(t.claims.Audience) > maxAudiences {
		return nil, errors.New("claims: too many audiences")
	}
	var err error
	if t.signature, err = base64.RawURLEncoding.Strict().DecodeString(signature); err != nil || len(t.signature) == 0 || strings.ContainsAny(signature, "\r\n") {
		return nil, errForm
	}
	return t, nil
}

func (h *header) validate() error {
	if h.Algorithm == "" || len(h.KeyID) > maxKeyID {
		return errForm
	}
	for _, name := range refusedHeaders {
		if _, ok := h.Rest[name]; ok {
			return fmt.Errorf("has %q, which is not accepted", name)
		}
	}
	return nil
}

// decode decodes a part of a token: base64url without padding and line breaks, and in it one JSON object
// without names that are there twice. A name in another spelling is another name.
func decode(part string, to any) error {
	if strings.ContainsAny(part, "\r\n") { // which the decoder skips
		return errForm
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil || len(raw) == 0 || raw[0] != '{' {
		return errForm
	}
	if json.Unmarshal(raw, to) != nil {
		return errJSON // the library's error may quote what the token says
	}
	return nil
}

// claim returns the claim at a path, such as "realm_access.roles". A claim whose whole name is the path goes first:
// there are issuers whose claims are named by URLs.
func (c *claims) claim(path string) (jsontext.Value, error) {
	if v, ok := c.Rest[path]; ok {
		return v, nil
	}
	names := strings.Split(path, ".")
	if len(names) == 1 || len(names) > maxPath {
		return nil, nil
	}
	within := c.Rest
	for _, name := range names[:len(names)-1] {
		v := within[name]
		if len(v) == 0 || v.Kind() != '{' {
			return nil, nil
		}
		within = nil
		if json.Unmarshal(v, &within) != nil {
			return nil, errJSON
		}
	}
	return within[names[len(names)-1]], nil
}

// list returns a claim that is a text or a list of texts. One of another form is refused: to pass over it could
// lose a group that a policy forbids something to.
func (c *claims) list(path string) ([]string, error) {
	v, err := c.claim(path)
	if err != nil || v == nil || v.Kind() == 'n' {
		return nil, err
	}
	var out texts
	if err := out.UnmarshalJSON(v); err != nil {
		return nil, fmt.Errorf("claim %q is no text and no list of texts", path)
	}
	if len(out) > maxGroups {
		return nil, fmt.Errorf("claim %q has too many values", path)
	}
	for _, s := range out {
		if len(s) > maxText {
			return nil, fmt.Errorf("claim %q has a value that is too long", path)
		}
	}
	return out, nil
}

// token returns what a token says whose signature was checked.
func (t *parsed) token(cfg *Config) (*Token, error) {
	c := &t.claims
	out := &Token{Issuer: c.Issuer, Subject: c.Subject, Client: c.Party, ACR: c.ACR, AMR: c.AMR, Expires: c.Expires.at().Add(cfg.Skew)}
	if out.Client == "" {
		out.Client = c.Client
	}
	var err, err2, err3 error
	out.Groups, err = c.list(cfg.GroupsClaim)
	out.Roles, err2 = c.list(cfg.RolesClaim)
	tenant, err3 := c.list(cfg.TenantClaim)
	if err := errors.Join(err, err2, err3); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if len(tenant) > 1 {
		return nil, fmt.Errorf("%w: more than one tenant", ErrRefused)
	}
	out.Tenant = strings.Join(tenant, "")
	if c.AuthTime != nil {
		out.AuthTime = c.AuthTime.at()
	}
	if len(out.AMR) > maxGroups || len(out.ACR) > maxText || len(out.Client) > maxText {
		return nil, fmt.Errorf("%w: claims are too long", ErrRefused)
	}
	if cnf := c.Confirmation; cnf != nil {
		if out.Thumbprint, out.KeyThumbprint = cnf.Thumbprint, cnf.KeyThumbprint; out.Thumbprint == "" && out.KeyThumbprint == "" {
			return nil, fmt.Errorf("%w: unknown confirmation", ErrRefused)
		}
	}
	return out, nil
}
