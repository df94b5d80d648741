package wall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"sallyport/internal/cell"
	"sallyport/internal/cell/wall/confine"
)

// hello is the first thing a worker says.
type hello struct {
	confine.Report
	// Reset is how the memories of guests are reset, and ResetWhy why it is not done better.
	Reset    string `json:"reset"`
	ResetWhy string `json:"reset_why,omitempty"`
	// Code says that the worker has a folder through which compiled code gets into its engine and out of it.
	Code bool `json:"code"`
}

// Main is a worker process: it takes everything from itself that it does not need, says so on conn,
// and serves until the server is gone.
func Main(ctx context.Context, conn io.ReadWriter, lanes []*os.File) (err error) {
	root := confine.Enter()
	// What the engine needs open is opened here.
	cfg := cell.Default()
	cfg.Expendable = true
	codes := newHanded()
	codes.missed = func(key string) {
		fmt.Fprintf(os.Stderr, "a module was compiled in the worker that runs it: no code was handed over for %s\n", key)
	}
	if root.Own {
		cfg.Cache, cfg.Scratch = codes, filepath.Join(confine.Folder, "engine")
	}
	engine, err := cell.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.Close(context.WithoutCancel(ctx))) }()
	h := hello{Code: root.Own}
	method, why := engine.ResetMethod()
	if h.Reset = method.String(); why != nil {
		h.ResetWhy = why.Error()
	}
	if h.Report, err = confine.Apply(root); err != nil {
		return fmt.Errorf("confine the worker: %w", err)
	}
	text, err := json.Marshal(&h)
	if err != nil {
		return err
	}
	out := newPacker(conn)
	if err := out.send(func(b []byte) []byte { return end(append(begin(b, kindHello, 0), text...), len(b)) }); err != nil {
		return fmt.Errorf("greet the server: %w", err)
	}
	return serve(ctx, newReader(conn, readBuffer), out, lanes, engine, codes)
}

// readHello reads what a worker says first.
func readHello(from reader) (h hello, err error) {
	f, err := from.next(func(k kind, id uint64) (int, error) {
		if k != kindHello || id != 0 {
			return 0, broken("a frame of kind %d came before hello", k)
		}
		return maxHello, nil
	})
	if err != nil {
		return h, err
	}
	if err := json.Unmarshal(f.body, &h, json.RejectUnknownMembers(true)); err != nil {
		return h, broken("hello is malformed: %v", err)
	}
	return h, nil
}

// apart is the wall that the worker's namespaces are, ours being those of this process.
func apart(ours, worker []string) confine.Wall {
	w := confine.Wall{Name: confine.NameNamespaces}
	var own, shared []string
	for _, ns := range ours {
		name, _, _ := strings.Cut(ns, ":")
		i := slices.IndexFunc(worker, func(s string) bool { return strings.HasPrefix(s, name+":") })
		if i < 0 || worker[i] == ns {
			shared = append(shared, name)
		} else {
			own = append(own, name)
		}
	}
	w.Stands = len(own) > 0 && len(shared) == 0
	if w.Detail = "its own: " + strings.Join(own, ", "); len(shared) > 0 {
		w.Detail = "shared with the server: " + strings.Join(shared, ", ")
	}
	return w
}
