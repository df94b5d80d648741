package guest

import (
	"encoding/json"
	"fmt"
	"strings"
)

// HTTPRequest is what a grant of kind http is asked to send. The credential of the grant is added outside of the function.
type HTTPRequest struct {
	// Method may be empty where the grant has one.
	Method string
	// Values take the places of {name} in the URL of the grant.
	Values map[string]string
	// URL is used in place of Values and Query: one that the grant makes.
	URL string
	// Query and Header hold what the grant lets the function add; they may be a url.Values and an http.Header.
	Query  map[string][]string
	Header map[string][]string
	Body   []byte
}

// HTTPResponse is an answer, whole.
type HTTPResponse struct {
	Status int
	// Header has the names in lower case.
	Header map[string][]string
	// URL is that of the request, or of the last redirect that the grant followed.
	URL  string
	Body []byte
}

// Get returns the first value of a header, and "" when there is none.
func (r *HTTPResponse) Get(name string) string {
	if v := r.Header[strings.ToLower(name)]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// Decode decodes the body, which is JSON.
func (r *HTTPResponse) Decode(to any) error { return json.Unmarshal(r.Body, to) }

// httpWire is a request as the host reads it.
type httpWire struct {
	Method  string              `json:"method,omitempty"`
	URL     string              `json:"url,omitempty"`
	Values  map[string]string   `json:"values,omitempty"`
	Query   map[string][]string `json:"query,omitempty"`
	Headers map[string][]string `json:"headers,omitempty"`
}

// Fetch sends a request by a grant of kind http. An answer of any status is no error. Programs that want a *http.Client find one in the package guesthttp.
func (c *Context) Fetch(grant string, r HTTPRequest) (*HTTPResponse, error) {
	a, err := c.Call(grant, "fetch", httpWire{r.Method, r.URL, r.Values, r.Query, r.Header}, r.Body)
	if err != nil {
		return nil, err
	}
	var head struct {
		Status  int         `json:"status"`
		Headers [][2]string `json:"headers"`
		URL     string      `json:"url"`
	}
	if err := a.Decode(&head); err != nil {
		return nil, fmt.Errorf("decode the answer of the grant %s: %w", grant, err)
	}
	out := &HTTPResponse{Status: head.Status, URL: head.URL, Header: make(map[string][]string, len(head.Headers)), Body: a.Body}
	for _, h := range head.Headers {
		out.Header[h[0]] = append(out.Header[h[0]], h[1])
	}
	return out, nil
}
