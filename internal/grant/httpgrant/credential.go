package httpgrant

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"sallyport/internal/manifest"
)

// credential is applied to requests.
type credential interface {
	// refs are the manifest's texts that it needs the values of.
	refs() []string
	// derived are texts made of these that are as secret as they are.
	derived(texts []string) []string
	// apply changes the request. It returns what it made for this request alone and must not come back to the function.
	apply(a *application) (once []string, err error)
}

// application is one use of a credential.
type application struct {
	req   *http.Request
	body  []byte
	texts []string // the values of refs
	token string   // of OAuth2
	at    time.Time
}

// newCredential returns the credential of a grant, or nil.
func newCredential(a *manifest.HTTPAuth) credential {
	switch {
	case a.Bearer != "":
		return headerCredential{ref: a.Bearer, name: "Authorization", prefix: "Bearer "}
	case a.Header != nil:
		return headerCredential{ref: a.Header.Value, name: a.Header.Name, prefix: a.Header.Prefix}
	case a.Basic != nil:
		return basicCredential{a.Basic}
	case a.Query != nil:
		return queryCredential{a.Query}
	case a.HMAC != nil:
		return signature{a.HMAC}
	case a.AWS != nil:
		return awsSignature{spec: a.AWS, signer: v4.NewSigner(func(o *v4.SignerOptions) {
			// Its other services sign the path escaped once more.
			o.DisableURIPathEscaping = a.AWS.Service == "s3"
		})}
	case a.OAuth2 != nil:
		return tokenCredential{a.OAuth2}
	}
	return nil
}

// errControl is the error of a value that cannot stand in a header. It has nothing of the value.
var errControl = errors.New("the secret has a line break or another control character in it")

func setHeader(req *http.Request, name, value string) error {
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return errControl
	}
	req.Header[http.CanonicalHeaderKey(name)] = []string{value}
	return nil
}

type headerCredential struct{ ref, name, prefix string }

func (c headerCredential) refs() []string            { return []string{c.ref} }
func (c headerCredential) derived([]string) []string { return nil }
func (c headerCredential) apply(a *application) ([]string, error) {
	return nil, setHeader(a.req, c.name, c.prefix+a.texts[0])
}

type basicCredential struct{ spec *manifest.HTTPBasic }

func (c basicCredential) refs() []string { return []string{c.spec.User, c.spec.Password} }
func (c basicCredential) derived(texts []string) []string {
	return []string{base64.StdEncoding.EncodeToString([]byte(texts[0] + ":" + texts[1]))}
}

func (c basicCredential) apply(a *application) ([]string, error) {
	if strings.Contains(a.texts[0], ":") {
		return nil, errors.New("the user has a colon in it")
	}
	return nil, setHeader(a.req, "Authorization", "Basic "+c.derived(a.texts)[0])
}

type queryCredential struct{ spec *manifest.HTTPNamed }

func (c queryCredential) refs() []string            { return []string{c.spec.Value} }
func (c queryCredential) derived([]string) []string { return nil }
func (c queryCredential) apply(a *application) ([]string, error) {
	var b strings.Builder
	b.WriteString(a.req.URL.RawQuery)
	addQuery(&b, c.spec.Name, a.texts[0])
	a.req.URL.RawQuery = b.String()
	return nil, nil
}

type tokenCredential struct{ spec *manifest.HTTPOAuth2 }

func (c tokenCredential) refs() []string            { return []string{c.spec.ClientID, c.spec.ClientSecret} }
func (c tokenCredential) derived([]string) []string { return nil }
func (c tokenCredential) apply(a *application) ([]string, error) {
	return nil, setHeader(a.req, "Authorization", "Bearer "+a.token)
}

// signature signs requests by HMAC. What is signed is a text of the manifest with parts of the request in the place of
// {method}, {host}, {path}, {query} (as they are sent), {timestamp} (seconds since 1970), {body} and {body_sha256} (in hex).
type signature struct{ spec *manifest.HTTPSigned }

func (c signature) refs() []string            { return []string{c.spec.Key} }
func (c signature) derived([]string) []string { return nil }
func (c signature) apply(a *application) ([]string, error) {
	make := sha256.New
	if c.spec.Algorithm == manifest.HMACSHA512 {
		make = sha512.New
	}
	at := strconv.FormatInt(a.at.Unix(), 10)
	sum := mac(make, a.texts[0], c.signed(a, at))
	text := hex.EncodeToString(sum)
	if c.spec.Encoding == manifest.HMACBase64 {
		text = base64.StdEncoding.EncodeToString(sum)
	}
	return []string{text}, setHeader(a.req, c.spec.Header, strings.NewReplacer("{timestamp}", at, "{signature}", text).Replace(c.spec.Format))
}

// signed returns the text that is signed. Parts are put in once: what looks like a placeholder within one is none.
func (c signature) signed(a *application, at string) string {
	digest := sha256.Sum256(a.body)
	return strings.NewReplacer(
		"{method}", a.req.Method, "{host}", a.req.Host, "{path}", a.req.URL.EscapedPath(), "{query}", a.req.URL.RawQuery,
		"{timestamp}", at, "{body}", string(a.body), "{body_sha256}", hex.EncodeToString(digest[:]),
	).Replace(c.spec.Signed)
}

func mac(make func() hash.Hash, key, text string) []byte {
	m := hmac.New(make, []byte(key))
	m.Write([]byte(text))
	return m.Sum(nil)
}

// awsSignature signs requests as AWS wants them, in Version 4.
type awsSignature struct {
	spec   *manifest.HTTPAWS
	signer *v4.Signer
}

func (c awsSignature) refs() []string {
	return []string{c.spec.AccessKey, c.spec.SecretKey, c.spec.Session}
}
func (c awsSignature) derived([]string) []string { return nil }

func (c awsSignature) apply(a *application) ([]string, error) {
	digest := sha256.Sum256(a.body)
	sum := hex.EncodeToString(digest[:])
	a.req.Header["X-Amz-Content-Sha256"] = []string{sum}
	creds := aws.Credentials{AccessKeyID: a.texts[0], SecretAccessKey: a.texts[1], SessionToken: a.texts[2]}
	for _, text := range a.texts {
		if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, errControl
		}
	}
	if err := c.signer.SignHTTP(context.Background(), creds, a.req, sum, c.spec.Service, c.spec.Region, a.at); err != nil {
		return nil, errors.New("the request cannot be signed")
	}
	header := a.req.Header.Get("Authorization")
	_, sig, _ := strings.Cut(header, "Signature=")
	return []string{header, url.QueryEscape(header), sig}, nil
}
