package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// GrantError is why the use of a grant failed.
type GrantError struct {
	// Code is stable: `sallyport explain CODE` says what it means.
	Code    string `json:"code"`
	Message string `json:"message"`
	// Retry says that the same use may succeed later, RetryAfter not earlier than in so many seconds.
	Retry      bool    `json:"retry"`
	RetryAfter float64 `json:"retry_after_seconds"`
}

// Error returns the message and the code.
func (e *GrantError) Error() string { return e.Message + " [" + e.Code + "]" }

// Answer is what came of the use of a grant.
type Answer struct {
	// Value is JSON, and Body what came with it as bytes.
	Value json.RawMessage
	Body  []byte
}

// Decode decodes the value.
func (a *Answer) Decode(to any) error { return json.Unmarshal(a.Value, to) }

// Use is a use of a grant that was begun.
type Use struct {
	host   host
	number int32
	err    error
}

// Begin begins to use a grant of the function and does not wait, so that several uses run at the same time. What op is, and what the
// request holds, is of the grant's kind; the request becomes JSON, nil an empty object. Wait takes the answer.
func (c *Context) Begin(grant, op string, request any, body []byte) *Use {
	text := []byte("{}")
	if request != nil {
		var err error
		if text, err = json.Marshal(request); err != nil {
			return &Use{err: fmt.Errorf("encode the request to the grant %s: %w", grant, err)}
		}
	}
	return &Use{host: c.host, number: c.host.begin(grant, op, text, body)}
}

// Wait waits for the answer and takes it: a second time there is none. The error is a *GrantError when the use failed.
func (u *Use) Wait() (*Answer, error) {
	if u.err != nil {
		return nil, u.err
	}
	a, failed := u.host.wait(u.number)
	u.err = errors.New("the answer was taken before")
	if a == nil {
		return nil, errors.New("there is no answer: the invocation is over")
	}
	if !failed {
		return a, nil
	}
	e := &GrantError{}
	if err := json.Unmarshal(a.Value, e); err != nil {
		return nil, fmt.Errorf("decode the error of a grant: %w", err)
	}
	return nil, e
}

// Call uses a grant of the function and waits for the answer.
func (c *Context) Call(grant, op string, request any, body []byte) (*Answer, error) {
	return c.Begin(grant, op, request, body).Wait()
}

// Invoke calls the function that a grant of kind invoke names, and decodes its reply into to, unless that is nil.
func (c *Context) Invoke(grant string, data, to any) error {
	a, err := c.Call(grant, "invoke", map[string]any{"data": data}, nil)
	if err != nil || to == nil {
		return err
	}
	return a.Decode(to)
}

// Secret returns the value of a grant of kind secret. Ask again rather than keep it: it may be rotated.
func (c *Context) Secret(grant string) ([]byte, error) {
	a, err := c.Call(grant, "value", nil, nil)
	if err != nil {
		return nil, err
	}
	var r struct {
		Value  string `json:"value"`
		Base64 []byte `json:"base64"`
	}
	if err := a.Decode(&r); err != nil || r.Base64 != nil {
		return r.Base64, err
	}
	return []byte(r.Value), nil
}

// Token returns a token that says who the function is, for the audience of a grant of kind identity, and when it ends.
func (c *Context) Token(grant string) (token string, expires time.Time, err error) {
	a, err := c.Call(grant, "token", nil, nil)
	if err != nil {
		return "", time.Time{}, err
	}
	var r struct {
		Token   string    `json:"token"`
		Expires time.Time `json:"expires"`
	}
	err = a.Decode(&r)
	return r.Token, r.Expires, err
}

// GrantUse is what a handler wants of a grant in a test.
type GrantUse struct {
	Grant, Op string
	Request   json.RawMessage
	Body      []byte
}

// TestWith is Test for a handler that uses grants: answer stands in for them. An error that is a *GrantError is what the handler gets.
func TestWith(h Handler, event []byte, answer func(GrantUse) (*Answer, error)) Outcome {
	return test(h, event, &testHost{end: time.Now().Add(testTimeout), answer: answer})
}

// begin implements host: the answer is there at once.
func (h *testHost) begin(grant, op string, request, body []byte) int32 {
	e := &GrantError{Code: "grant.not_granted", Message: "the function has no grant " + grant}
	var a *Answer
	if h.answer != nil {
		var err error
		if a, err = h.answer(GrantUse{Grant: grant, Op: op, Request: request, Body: body}); err != nil && !errors.As(err, &e) {
			e = &GrantError{Code: "internal", Message: err.Error()}
		} else if err == nil {
			e = nil
		}
	}
	h.answers = append(h.answers, testAnswer{a, e})
	return int32(len(h.answers))
}

// testAnswer is an answer, or an error.
type testAnswer struct {
	answer *Answer
	err    *GrantError
}

// wait implements host.
func (h *testHost) wait(number int32) (*Answer, bool) {
	a := h.answers[number-1]
	if a.err == nil {
		return a.answer, false
	}
	text, err := json.Marshal(a.err)
	if err != nil {
		return nil, true
	}
	return &Answer{Value: text}, true
}
