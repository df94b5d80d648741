package httpgrant

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/grant"
	"sallyport/internal/outbound"
)

// tokenStandIn stands for a token of OAuth2 in a rehearsal, where no issuer is asked.
const tokenStandIn = "stand-in-for-an-oauth2-token"

// rehearsal has the requests of one use answered by a Stand.
type rehearsal struct {
	call     *grant.Call
	stand    grant.Stand
	carryOut bool
}

// errCarryOut ends a rehearsal whose use is to be made.
var errCarryOut = errors.New("the use is carried out")

// Rehearse implements grant.Rehearser: the request is made as for real, with the credential, and an address that stands in the
// manifest is checked. Names are not looked up. What the stand-in answers is treated like an answer of the service: redirects are
// followed and credentials taken out.
func (d *Door) Rehearse(ctx context.Context, call *grant.Call, s grant.Stand) (grant.Reply, bool, error) {
	re := &rehearsal{call: call, stand: s}
	reply, err := d.do(ctx, call, re)
	if re.carryOut {
		return grant.Reply{}, true, nil
	}
	return reply, false, err
}

// sent is a request as tests and fixtures have it: the URL and headers are without the credential.
type sent struct {
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers,omitzero"`
}

// standInAnswer is an answer as tests and fixtures have it.
type standInAnswer struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"`
	// URL is in what functions get, and so in what was recorded.
	URL string `json:"url"`
}

func (re *rehearsal) exchange(ctx context.Context, d *Door, p *plan, m *material) (*outbound.Answer, *material, error) {
	cfg, err := d.routeConfig("", "", "")
	if err != nil {
		return nil, nil, err
	}
	if err := cfg.CheckLiteral(d.template.Host); err != nil {
		return nil, nil, d.failure(err, m)
	}
	if _, err := d.request(ctx, p, m); err != nil {
		return nil, nil, err
	}
	about := sent{Method: p.method, URL: p.url, Headers: map[string]string{}}
	for name, values := range p.headers {
		about.Headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	text, err := json.Marshal(&about, json.Deterministic(true))
	if err != nil {
		return nil, nil, err
	}
	reply, carryOut, err := re.stand.Answer(ctx, re.call, grant.Planned{Sent: grant.WithBody(text, p.body), Effect: true})
	if carryOut {
		re.carryOut = true
		return nil, nil, errCarryOut
	}
	if err != nil {
		return nil, nil, err
	}
	answer, err := d.standIn(re.call, reply)
	return answer, m, err
}

// standIn makes an answer of a service of what a stand-in says.
func (d *Door) standIn(call *grant.Call, reply grant.Reply) (*outbound.Answer, error) {
	const want = "{status, headers, body}"
	var a standInAnswer
	if err := json.Unmarshal(reply.JSON, &a, json.RejectUnknownMembers(true)); err != nil {
		return nil, grant.NotOfForm(call.Caller.Grant, want, err)
	}
	if a.Status == 0 {
		a.Status = http.StatusOK
	}
	if a.Status < 200 || a.Status > 599 {
		return nil, grant.NotOfForm(call.Caller.Grant, want+", with a status of 200 to 599", nil)
	}
	if int64(len(reply.Body)) > d.limits.Reply {
		return nil, d.failure(outbound.ErrTooLarge, nil)
	}
	h := http.Header{}
	for name, value := range a.Headers {
		h.Set(name, value)
	}
	if body := jsontext.Value(reply.Body); h.Get("Content-Type") == "" && len(body) > 0 {
		kind := "text/plain; charset=utf-8"
		if body.IsValid() && (body.Kind() == '{' || body.Kind() == '[') {
			kind = "application/json"
		}
		h.Set("Content-Type", kind)
	}
	return &outbound.Answer{Status: a.Status, Header: h, Body: reply.Body}, nil
}
