package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/go-json-experiment/json"

	"sallyport/api"
)

// LogOptions select lines of the function logs.
type LogOptions struct {
	Function, Event, Since string
	Limit                  int
	Follow                 bool
}

// ErrStreamEnded says that the server ended a stream that was to go on: usually it is stopping.
var ErrStreamEnded = errors.New("the server ended the stream")

// maxLine bounds one line of the function logs in bytes; the server cuts them far below.
const maxLine = 4 << 20

// Logs calls line for each line, oldest first. With Follow it goes on until ctx ends, line returns an
// error, or the server ends the stream (ErrStreamEnded).
func (c *Client) Logs(ctx context.Context, o LogOptions, line func(*api.LogLine) error) error {
	q := url.Values{}
	set(q, "function", o.Function)
	set(q, "event", o.Event)
	set(q, "since", o.Since)
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	if o.Follow {
		q.Set("follow", "true")
	}
	resp, err := c.do(ctx, request{method: http.MethodGet, path: c.inNamespace("logs"), query: q})
	if err != nil {
		return err
	}
	defer closeBody(resp)
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var l api.LogLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("read log line: %w", err)
		}
		if err := line(&l); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := lines.Err(); err != nil || !o.Follow {
		return err
	}
	return ErrStreamEnded
}
