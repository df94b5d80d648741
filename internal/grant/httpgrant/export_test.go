package httpgrant

import (
	"bytes"
	"context"

	"sallyport/internal/grant"
)

// Wire returns the bytes of the request that a function's call becomes, without a credential, or why it becomes none.
func (d *Door) Wire(call *grant.Call) ([]byte, error) {
	p, err := d.plan(call)
	if err != nil {
		return nil, err
	}
	req, err := d.request(context.Background(), p, &material{})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = req.Write(&b)
	return b.Bytes(), err
}

// Open returns how many connections are open.
func (d *Door) Open() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.route == nil {
		return 0
	}
	return d.route.out.Open()
}
