package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/client"
)

// idleApps and idleFunctions make ten thousand functions, less those in other languages.
const (
	idleApps      = 10
	idleFunctions = 990
)

// measureIdle is what ten thousand deployed functions cost that have nothing to do: memory above that
// of the server with one, and what they add to an event of that one. Their scripts are all different.
func measureIdle(ctx context.Context, o options, r *report, stderr io.Writer) (err error) {
	file := filepath.Join(o.dir, "idle.toml")
	if err := os.WriteFile(file, []byte("[cells]\nmemory = \"64MiB\"\n"), 0o600); err != nil {
		return err
	}
	s, err := startSallyport(ctx, o, filepath.Join(o.dir, "idle"), "--config", file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	c, err := s.apply(ctx, "f.js", api.Module{Kind: api.ModuleScript, Code: []byte(trivialScript)})
	if err != nil {
		return err
	}
	defer c.Close()
	alone, err := invocations(ctx, c)
	if err != nil {
		return err
	}
	before, err := s.resident()
	if err != nil {
		return err
	}
	for i := range idleApps {
		if _, err := c.Apply(ctx, idleApp(i), false); err != nil {
			return err
		}
		fmt.Fprintf(stderr, "  deployed %d functions\n", (i+1)*idleFunctions)
	}
	among, err := invocations(ctx, c)
	if err != nil {
		return err
	}
	after, err := s.resident()
	r.compare("(idle) 9,900 scripts, 64 MiB for loaded ones", "memory above one function", 0,
		fmt.Sprintf("%.1f MiB resident, bar ≤ 150 for 10,000", mib(after-before)))
	r.compare("(idle)", "p50 of an invocation, among them : alone", float64(among)/float64(alone), fmt.Sprintf("%s and %s, bar ≤ 1.05", among, alone))
	return err
}

// idleApp is an app of functions that nothing is sent to.
func idleApp(app int) *api.Bundle {
	b := &api.Bundle{Modules: map[string]api.Module{}}
	var manifest strings.Builder
	fmt.Fprintf(&manifest, "name = \"idle-%d\"\n[functions]\n", app)
	for i := range idleFunctions {
		name := fmt.Sprintf("idle-%d-%d", app, i)
		fmt.Fprintf(&manifest, "%s.source = \"%s.js\"\n", name, name)
		b.Modules[name] = api.Module{Kind: api.ModuleScript, Code: fmt.Appendf(nil,
			"const rates = new Map([[\"a\", %d], [\"b\", 2]]);\nexport default (event) => ({ name: %q, rate: rates.get(event.data) });\n", i, name)}
	}
	b.Manifest = manifest.String()
	return b
}

// invocations returns the median of some invocations of the one function that is not idle.
func invocations(ctx context.Context, c *client.Client) (time.Duration, error) {
	const count = 500
	var took []time.Duration
	for range count {
		began := time.Now()
		if _, err := c.Invoke(ctx, "f", []byte("1"), "application/json"); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[count/2], nil
}
