package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/client"
)

// maxInput bounds what is read from a file or stdin, in bytes; the server's own limits are lower.
const maxInput = 64 << 20

// input returns what a --data value means: the text itself, @file, or - for stdin.
func (a *app) input(value string) ([]byte, error) {
	switch {
	case value == "-":
		return readAll(a.env.Stdin, "stdin", maxInput)
	case strings.HasPrefix(value, "@"):
		return readBounded(value[1:], maxInput)
	}
	return []byte(value), nil
}

type sendFlags struct {
	eventType, file, id, source, subject, data, contentType, at string
	extensions                                                  []string
	wait                                                        bool
	timeout                                                     time.Duration
}

func (a *app) sendCommand() *cobra.Command {
	var f sendFlags
	c := &cobra.Command{
		Use:   "send {TYPE | FILE.json}",
		Short: "Send an event",
		Long: `Send an event of TYPE made from flags, or the CloudEvents in a JSON file: one event or an array of them. An argument
that ends in .json, or has a slash, is a file; --type and --file leave no doubt. With --wait it prints the way of each
event, and of those it causes, and exits 1 when one of them ends as a dead letter.`,
		Example: `  sallyport send order.created --data '{"id":"o-1"}' --wait
  sallyport send --type order.created --data @order.json --subject o-1 --extension tenant=acme
  sallyport send event.json
  cat events.json | sallyport send -f -`,
		Args:              func(_ *cobra.Command, args []string) error { return f.argument(args) },
		ValidArgsFunction: cobra.FixedCompletions([]cobra.Completion{"json"}, cobra.ShellCompDirectiveFilterFileExt),
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			return a.send(ctx, c, &f)
		}),
	}
	flags := c.Flags()
	flags.StringVarP(&f.file, "file", "f", "", "`file` with CloudEvents in JSON; - is stdin")
	flags.StringVar(&f.eventType, "type", "", "type")
	flags.StringVar(&f.id, "id", "", "id (default: a random one)")
	flags.StringVar(&f.source, "source", "/cli", "source")
	flags.StringVar(&f.subject, "subject", "", "subject")
	flags.StringVar(&f.data, "data", "", "data: JSON, @file, or - for stdin")
	flags.StringVar(&f.contentType, "content-type", "", "`type` of the data (default application/json)")
	flags.StringVar(&f.at, "time", "", "time of the occurrence, RFC 3339 (default: now)")
	flags.StringArrayVar(&f.extensions, "extension", nil, "extension attribute `name=value`, repeatable")
	flags.BoolVarP(&f.wait, "wait", "w", false, "wait for the outcome, of events it causes too")
	flags.DurationVar(&f.timeout, "timeout", time.Minute, "how long to wait at most")
	return c
}

// argument takes the argument as what it looks like, and sees that there is exactly one thing to send.
func (f *sendFlags) argument(args []string) error {
	if len(args) > 1 {
		return usage("send takes one event type, or one file")
	}
	if len(args) == 1 {
		switch arg := args[0]; {
		case arg == "":
			return usage("the event type is empty")
		case f.eventType != "" || f.file != "":
			return usage("send takes an event type or a file, and %q comes on top of the flag", clean(arg))
		case arg == "-" || strings.HasSuffix(arg, ".json") || strings.ContainsAny(arg, `/\`):
			f.file = arg
		default:
			f.eventType = arg
		}
	}
	if (f.eventType == "") == (f.file == "") {
		return usage("send takes an event type, or a file of events")
	}
	if f.file != "" && (f.id != "" || f.subject != "" || f.data != "" || f.contentType != "" || f.at != "" || len(f.extensions) > 0) {
		return usage("a file holds whole events: --id, --subject, --data, --content-type, --time and --extension do not go with it")
	}
	return nil
}

// text returns the JSON to send, and whether it is a batch.
func (f *sendFlags) text(a *app) (text []byte, batch bool, err error) {
	if f.file != "" {
		from := "-"
		if f.file != "-" {
			from = "@" + f.file
		}
		text, err = a.input(from)
		return text, bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("[")), err
	}
	e := map[string]any{
		"specversion": "1.0", "id": cmp.Or(f.id, rand.Text()), "source": f.source, "type": f.eventType,
		"time": cmp.Or(f.at, time.Now().UTC().Format(time.RFC3339Nano)),
	}
	if f.subject != "" {
		e["subject"] = f.subject
	}
	if err := f.addExtensions(e); err != nil {
		return nil, false, err
	}
	if err := f.addData(a, e); err != nil {
		return nil, false, err
	}
	// Duplicate names in the data go on as they are: the server says what is wrong, and where.
	text, err = json.Marshal(e, json.Deterministic(true), jsontext.AllowDuplicateNames(true))
	return text, false, err
}

func (f *sendFlags) addExtensions(e map[string]any) error {
	own := []string{"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data", "data_base64"}
	for _, x := range f.extensions {
		name, value, ok := strings.Cut(x, "=")
		if !ok || name == "" {
			return usage("--extension wants name=value, not %q", clean(x))
		}
		if _, twice := e[name]; twice || slices.Contains(own, name) {
			return usage("--extension %s: this attribute has a flag of its own, or was given twice", clean(name))
		}
		e[name] = value
	}
	return nil
}

func (f *sendFlags) addData(a *app, e map[string]any) error {
	if f.data == "" {
		return nil
	}
	data, err := a.input(f.data)
	if err != nil {
		return err
	}
	contentType := cmp.Or(f.contentType, "application/json")
	e["datacontenttype"] = contentType
	if !isJSON(contentType) {
		e["data_base64"] = base64.StdEncoding.EncodeToString(data)
		return nil
	}
	if err := checkSyntax(data); err != nil {
		return usage("the data is not JSON: %w; name its --content-type if it is not meant to be", err)
	}
	e["data"] = jsontext.Value(data)
	return nil
}

// checkSyntax says where data stops to be JSON. Whether it is JSON that an event may hold is for the server to say.
func checkSyntax(data []byte) error {
	v := jsontext.Value(bytes.Clone(data))
	err := v.Compact(jsontext.AllowInvalidUTF8(false))
	if bad, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return fmt.Errorf("%w at byte %d", bad.Err, bad.ByteOffset)
	}
	return err
}

// isJSON reports whether a content type is of JSON, as CloudEvents defines it.
func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (strings.HasSuffix(media, "/json") || strings.HasSuffix(media, "+json"))
}

func (a *app) send(ctx context.Context, c *client.Client, f *sendFlags) error {
	text, batch, err := f.text(a)
	if err != nil {
		return err
	}
	out, err := c.Publish(ctx, text, batch)
	if err != nil {
		return err
	}
	if !f.wait {
		return a.showReceipts(out)
	}
	return a.awaitAll(ctx, c, out.Receipts, f.timeout)
}

func (a *app) showReceipts(out *api.Receipts) error {
	return showList(a, out, out.Receipts, table[api.Receipt]{
		noun: "events were sent", header: []string{"ID", "SOURCE", "POSITION", "ACCEPTED"},
		row: func(r *api.Receipt) []string {
			how := "now"
			if r.Duplicate {
				how = "before (duplicate)"
			}
			return []string{r.ID, r.Source, fmt.Sprint(r.Position), how}
		},
		id: func(r *api.Receipt) string { return r.ID },
	})
}

// awaitAll waits for the outcome of events and prints their ways.
func (a *app) awaitAll(ctx context.Context, c *client.Client, receipts []api.Receipt, timeout time.Duration) error {
	w := waiter{client: c, until: time.Now().Add(timeout)}
	for _, r := range receipts {
		if err := w.follow(ctx, r.ID, r.Source); err != nil {
			// The events are there, whatever became of the connection: to send them again would be wrong.
			a.say("accepted all the same; what becomes of it: sallyport event get %s", clean(r.ID))
			return err
		}
	}
	if err := showEach(a, w.events, w.events, func(out io.Writer) {
		for _, e := range w.events {
			if a.quiet {
				fmt.Fprintln(out, clean(e.ID))
				continue
			}
			writeWay(out, e)
		}
	}); err != nil {
		return err
	}
	if w.more {
		a.say("these caused more events than the %d that are followed; see `sallyport event list`", maxFollow)
	}
	switch w.state() {
	case api.StateDead:
		a.say("next: sallyport dead-letter list")
		return outcome(exitFailed)
	case api.StatePending:
		a.say("still pending after %s\nnext: sallyport event get %s --wait", timeout, clean(w.pending()))
		return outcome(exitUnreachable)
	case api.StateDone:
	}
	return nil
}
