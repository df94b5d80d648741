// Package guesthttp lets what uses net/http in a function, such as the client library of a service, send its requests by a grant of kind http.
//
//	charges := guesthttp.Client(ctx, "charges")
//	resp, err := charges.Get("https://api.example.org/v1/charges/ch_1")
//
// A request whose URL the grant does not make is an error. So is a header that it does not allow: a library that sends a credential of its own needs
// to be told to leave that out, for the grant adds the real one outside of the function.
package guesthttp

import (
	"bytes"
	"fmt"
	"io"
	"net/http"

	guest "sallyport/sdk/go"
)

// Client returns a client whose requests are sent by a grant. It is of one invocation, as ctx is. The function waits for each request as a whole. The error of a use that failed has a *guest.GrantError in it.
func Client(ctx *guest.Context, grant string) *http.Client {
	return &http.Client{Transport: Transport{ctx, grant}}
}

// Transport is the http.RoundTripper of Client.
type Transport struct {
	Context *guest.Context
	Grant   string
}

// RoundTrip implements http.RoundTripper. Bodies go both ways whole.
func (t Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := whole(req.Body)
	if err == nil {
		err = req.Context().Err()
	}
	if err != nil {
		return nil, err
	}
	url, asked := *req.URL, req.Header.Clone()
	url.Fragment, url.RawFragment = "", ""
	asked.Del("Referer") // the client makes one when it follows a redirect, and no grant takes it unasked
	r, err := t.Context.Fetch(t.Grant, guest.HTTPRequest{Method: req.Method, URL: url.String(), Header: asked, Body: body})
	if err != nil {
		return nil, err
	}
	header := http.Header{}
	for name, values := range r.Header {
		header[http.CanonicalHeaderKey(name)] = values
	}
	return &http.Response{
		Status: fmt.Sprint(r.Status, " ", http.StatusText(r.Status)), StatusCode: r.Status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: io.NopCloser(bytes.NewReader(r.Body)), ContentLength: int64(len(r.Body)), Request: req,
	}, nil
}

// whole reads a body and closes it, as a RoundTripper has to.
func whole(body io.ReadCloser) ([]byte, error) {
	if body == nil {
		return nil, nil
	}
	b, err := io.ReadAll(body)
	if closeErr := body.Close(); err == nil {
		err = closeErr
	}
	return b, err
}
