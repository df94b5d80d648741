package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"sallyport/api"
)

// Publish sends one event, or a batch of them, in the JSON format of CloudEvents.
func (c *Client) Publish(ctx context.Context, events []byte, batch bool) (*api.Receipts, error) {
	contentType := "application/cloudevents+json"
	if batch {
		contentType = "application/cloudevents-batch+json"
	}
	return answer[api.Receipts](ctx, c, request{
		method: http.MethodPost, path: c.inNamespace("events"), body: events, header: http.Header{"Content-Type": {contentType}},
	})
}

// EventOptions say what Event is to answer.
type EventOptions struct {
	Source string        // needed when events of several sources have the id
	Wait   time.Duration // for the outcome, at most a minute
	Data   bool
}

// Event returns one event and its way.
func (c *Client) Event(ctx context.Context, id string, o EventOptions) (*api.Event, error) {
	q := url.Values{}
	set(q, "source", o.Source)
	if o.Wait > 0 {
		q.Set("wait", o.Wait.String())
	}
	if o.Data {
		q.Set("data", "true")
	}
	return get[api.Event](ctx, c, q, c.inNamespace("events", id))
}

// ListOptions select and page what a list answers. A list ignores fields that are not for it.
type ListOptions struct {
	Type, Source, Subscription, Since, Until, State, Cursor string
	Limit                                                   int
}

func (o ListOptions) query() url.Values {
	q := url.Values{}
	set(q, "type", o.Type)
	set(q, "source", o.Source)
	set(q, "subscription", o.Subscription)
	set(q, "since", o.Since)
	set(q, "until", o.Until)
	set(q, "state", o.State)
	set(q, "cursor", o.Cursor)
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	return q
}

// Events lists events, newest first.
func (c *Client) Events(ctx context.Context, o ListOptions) (*api.EventList, error) {
	return get[api.EventList](ctx, c, o.query(), c.inNamespace("events"))
}

// Invocation is the answer of a function to a synchronous call.
type Invocation struct {
	EventID string
	Reply   jsontext.Value // empty when the function replied nothing
}

// Invoke runs a function on data and waits for its reply.
func (c *Client) Invoke(ctx context.Context, function string, data []byte, contentType string) (*Invocation, error) {
	resp, err := c.do(ctx, request{
		method: http.MethodPost, path: c.inNamespace("functions", function, "invoke"), body: data, header: http.Header{"Content-Type": {contentType}},
	})
	if err != nil {
		return nil, err
	}
	defer closeBody(resp)
	reply, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the reply: %w", err)
	}
	return &Invocation{EventID: resp.Header.Get("Sallyport-Event-Id"), Reply: reply}, nil
}
