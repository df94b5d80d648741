// Command go uses the grant that the data names, and replies with what came of it: see grants_test.go.
package main

import (
	"encoding/json"
	"errors"

	guest "sallyport/sdk/go"
)

func init() { guest.Handle(use) }

func main() {}

type reply struct {
	Served bool   `json:"served"`
	Value  string `json:"value"`
	Body   string `json:"body"`
}

func use(ctx *guest.Context, event *guest.Event) (any, error) {
	var data struct{ Grant, Op, Request, Body string }
	if err := event.Decode(&data); err != nil {
		return nil, err
	}
	answer, err := ctx.Call(data.Grant, data.Op, json.RawMessage(data.Request), []byte(data.Body))
	if failed := (*guest.GrantError)(nil); errors.As(err, &failed) {
		text, err := json.Marshal(failed)
		return reply{Value: string(text)}, err
	}
	if err != nil {
		return nil, err
	}
	return reply{Served: true, Value: string(answer.Value), Body: string(answer.Body)}, nil
}
