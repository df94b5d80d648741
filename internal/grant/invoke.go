package grant

import (
	"context"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// OpInvoke is what is done with a grant of kind invoke.
const OpInvoke = "invoke"

// Invoker calls functions on behalf of functions: a call is an event on the same road as all others.
type Invoker interface {
	// MayInvoke returns why such a call would be refused.
	MayInvoke(ctx context.Context, c *Caller, function ident.FunctionName) error
	// InvokeFor calls a function of the caller's namespace and returns its reply, or the problem it came to.
	InvokeFor(ctx context.Context, c *Caller, function ident.FunctionName, data []byte) (jsontext.Value, error)
}

// Invokes returns the kind of grants that call functions through an Invoker.
func Invokes(through Invoker) Kind { return invokes{through} }

type invokes struct{ through Invoker }

// Open implements Kind.
func (k invokes) Open(_ context.Context, o Opening) (Door, error) {
	return &invokeDoor{k.through, o.Grant.Invoke.Function}, nil
}

type invokeDoor struct {
	through  Invoker
	function ident.FunctionName
}

// Do implements Door: {data} is the data of the event; the reply is the value that the function returned, or null.
func (d *invokeDoor) Do(ctx context.Context, call *Call) (Reply, error) {
	data, err := invokeData(call)
	if err != nil {
		return Reply{}, err
	}
	reply, err := d.through.InvokeFor(ctx, &call.Caller, d.function, data)
	return Reply{JSON: reply}, err
}

// Rehearse implements Rehearser. What a function would reply is nobody's guess.
func (d *invokeDoor) Rehearse(ctx context.Context, call *Call, s Stand) (Reply, bool, error) {
	data, err := invokeData(call)
	if err != nil {
		return Reply{}, false, err
	}
	if err := d.through.MayInvoke(ctx, &call.Caller, d.function); err != nil {
		return Reply{}, false, err
	}
	sent, err := json.Marshal(struct {
		Function ident.FunctionName `json:"function"`
		Data     jsontext.Value     `json:"data,omitzero"`
	}{d.function, data})
	if err != nil {
		return Reply{}, false, err
	}
	return s.Answer(ctx, call, Planned{Sent: sent, Effect: true})
}

func invokeData(call *Call) (jsontext.Value, error) {
	if call.Op != OpInvoke {
		return nil, problem.New(problem.Invalid, "grant.op_unknown", "a grant of kind invoke has no %q; it has %s", call.Op, OpInvoke)
	}
	var request struct {
		Data jsontext.Value `json:"data"`
	}
	if err := json.Unmarshal(call.Request, &request, json.RejectUnknownMembers(true)); err != nil {
		return nil, problem.New(problem.Invalid, "grant.request_invalid", "the request of an invoke is not {data}")
	}
	return request.Data, nil
}

// Close implements Door.
func (d *invokeDoor) Close() error { return nil }
