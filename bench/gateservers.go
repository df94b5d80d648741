package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"sallyport/api"
	"sallyport/client"
)

// onePermit is the policy set that all the rest is compared with.
const onePermit = "@id(\"one\") permit (principal, action, resource);\n"

// gatePerimeter has the load cross a border twice: the event comes in by one bridge, and its function and type are inside.
const gatePerimeter = `[perimeters.bench]
event_types = ["bench.*"]
functions = ["f"]
[perimeters.bench.bridges.in]
from = ["service:*"]
to = ["event_type:bench.*"]
actions = ["publish"]
[perimeters.other]
event_types = ["other.*"]
mode = "dry-run"
`

// gateWindows is in how many windows a round is measured, in turn: what else the machine does then meets both servers.
const gateWindows = 4

// gateServer is a server under measurement.
type gateServer struct {
	*sallyport
	client *client.Client
	target *target
}

// gateServers compares two servers of the same binary, in turn: one with one permit and a token of its own, and one with all that the gate
// has. Decisions are recorded by both: there is no server without.
func gateServers(ctx context.Context, o options, r *report, stderr io.Writer) (err error) {
	web := httptest.NewUnstartedServer(nil)
	web.StartTLS()
	defer web.Close()
	own, err := newOwnIssuer(ctx, o.dir, web.URL)
	if err != nil {
		return err
	}
	web.Config.Handler = own
	config, err := gateConfig(o.dir, web)
	if err != nil {
		return err
	}
	plain, err := startGate(ctx, o, "plain", map[string]string{"policies/one.cedar": onePermit})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plain.stop()) }()
	files := gatePolicyFiles("default", gatePolicies)
	files["policies/perimeters.toml"] = gatePerimeter
	full, err := startGate(ctx, o, "full", files, "--config", config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, full.stop()) }()
	pair := []*gateServer{plain, full}
	for _, phase := range []struct {
		name string
		take func(*gateServer, context.Context, load) (sample, error)
	}{{"accept", (*gateServer).accept}, {"accept → done", (*gateServer).done}} {
		var got [2][]sample
		for window := range gateWindows * (o.rounds + 1) {
			if full.target.token, _, err = own.Token(ctx, gateCaller, gateAudience); err != nil {
				return err
			}
			for i, s := range pair {
				l := load{target: s.target, clients: o.clients, duration: o.duration / gateWindows, want: 202, request: singles(fmt.Sprint(phase.name, window))}
				of := o
				of.duration /= gateWindows
				if of.profile != "" && s == plain {
					of.profile += ".one-permit" // to compare with
				}
				stopProfile := profileDuring(ctx, of, s.sallyport, phase.name == "accept" && window == gateWindows*(o.rounds+1)-1)
				one, err := phase.take(s, ctx, l)
				stopProfile()
				if err != nil {
					return fmt.Errorf("%s, %s: %w", phase.name, []string{"one permit", "all on"}[i], err)
				}
				if window >= gateWindows { // the first round warms up
					got[i] = append(got[i], one)
				}
			}
		}
		for _, s := range pair {
			if err := s.deliver(ctx); err != nil {
				return err
			}
		}
		r.add("(gate) "+phase.name, "one permit", got[0])
		r.add("(gate) "+phase.name, "1,000 policies, perimeters, OIDC", got[1])
		r.compare("(gate) "+phase.name, "all on : one permit, CPU per event", pairRatio(got[0], got[1], cpuPerEvent), atMost(1.1), "decisions are recorded by both")
		fmt.Fprintf(stderr, "  %s measured\n", phase.name)
	}
	return gateInForce(ctx, r, full)
}

// gateConfig writes the settings of a server that takes the tokens of an issuer.
func gateConfig(dir string, web *httptest.Server) (string, error) {
	ca := filepath.Join(dir, "issuer-ca.crt")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	config := filepath.Join(dir, "gate.toml")
	text := fmt.Sprintf("[[issuers]]\nurl = %q\naudience = [%q]\nca_file = %q\nprivate_network = true\nprincipal = \"service\"\n"+
		"[[issuers.map]]\nclaim = \"sub\"\nvalue = \"%s/%s\"\nrole = \"publisher\"\nnamespace = \"default\"\n", web.URL, gateAudience, ca, gateCaller.Namespace, gateCaller.Function)
	return config, errors.Join(os.WriteFile(ca, block, 0o600), os.WriteFile(config, []byte(text), 0o600))
}

func startGate(ctx context.Context, o options, name string, files map[string]string, extra ...string) (*gateServer, error) {
	s, err := startSallyport(ctx, o, filepath.Join(o.dir, "gate-"+name), extra...)
	if err != nil {
		return nil, err
	}
	g := &gateServer{sallyport: s}
	if g.client, err = s.apply(ctx, "f.wasm", api.Module{Kind: api.ModuleWasm, Code: trivialModule()}); err == nil {
		if _, err = g.client.SetPaused(ctx, "all", true); err == nil {
			_, err = g.client.ApplyPolicies(ctx, false, "gate", files, false)
		}
	}
	if err == nil {
		g.target, err = s.events()
	}
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return g, nil
}

// accept measures accepting alone: the subscription is paused.
func (g *gateServer) accept(ctx context.Context, l load) (sample, error) {
	return l.run(ctx, g.process)
}

// done measures accepting and dispatch together.
func (g *gateServer) done(ctx context.Context, l load) (sample, error) {
	return acceptAndSettle(ctx, g.sallyport, g.client, l)
}

// deliver has what was accepted delivered.
func (g *gateServer) deliver(ctx context.Context) error {
	const poll = 20 * time.Millisecond
	if _, err := g.client.SetPaused(ctx, "all", false); err != nil {
		return err
	}
	return settle(ctx, g.client, poll)
}

// gateInForce measures how long after an operator asked for a change of policies the last request was allowed that it forbids, and how long a
// stream of lines went on that it forbids.
func gateInForce(ctx context.Context, r *report, s *gateServer) error {
	const changes = 5
	var requests, streams time.Duration
	for range changes {
		request, stream, err := gateChange(ctx, s)
		if err != nil {
			return err
		}
		requests, streams = max(requests, request), max(streams, stream)
	}
	r.figure("(gate)", "policy change in force, for new requests", requests.Seconds()*1e3, "ms", atMost(1000), fmt.Sprintf("the longest of %d, with 1,000 policies", changes))
	r.figure("(gate)", "policy change in force, for running work", streams.Seconds()*1e3, "ms", atMost(1000), "a stream of lines ends; from the answer to the change on")
	return nil
}

func gateChange(ctx context.Context, s *gateServer) (request, stream time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	made, err := s.client.CreateToken(ctx, api.TokenRequest{Role: "reader", Namespace: "default"})
	if err != nil {
		return 0, 0, err
	}
	file := filepath.Join(filepath.Dir(s.ready.TokenFile), "reader.token")
	if err := os.WriteFile(file, []byte(made.Text+"\n"), 0o600); err != nil {
		return 0, 0, err
	}
	reader, err := client.New(client.Config{Server: s.ready.URL, CAFile: s.ready.CAFile, TokenFile: file, Namespace: "default"})
	if err != nil {
		return 0, 0, err
	}
	defer reader.Close()
	ended := make(chan error, 1)
	go func() {
		ended <- reader.Logs(ctx, client.LogOptions{Follow: true}, func(*api.LogLine) error { return nil })
	}()
	// The last request that was allowed was asked for at this time.
	var last atomic.Int64
	asked := make(chan error, 1)
	go func() { asked <- untilDenied(ctx, reader, &last) }()
	for last.Load() == 0 { // requests are allowed
		select {
		case err := <-asked:
			return 0, 0, fmt.Errorf("before the change: %w", err)
		case <-time.After(time.Millisecond):
		}
	}
	began := time.Now()
	forbid := fmt.Sprintf("@id(\"no-reader\") forbid (principal == Token::%q, action, resource);\n", made.ID)
	if _, err := s.client.ApplyPolicies(ctx, false, "change", map[string]string{"policies/change.cedar": forbid}, false); err != nil {
		return 0, 0, err
	}
	answered := time.Now()
	if err := <-asked; err != nil {
		return 0, 0, err
	}
	request = max(0, time.Unix(0, last.Load()).Sub(began))
	err = <-ended
	if ctx.Err() != nil {
		return 0, 0, fmt.Errorf("the stream did not end: %w", err)
	}
	return request, time.Since(answered), nil
}

// untilDenied asks until it is denied, and notes when what was allowed last was asked for.
func untilDenied(ctx context.Context, c *client.Client, last *atomic.Int64) error {
	for {
		at := time.Now()
		_, err := c.Functions(ctx)
		if p, ok := errors.AsType[*client.Problem](err); ok && p.Code == "access.denied" {
			return nil
		}
		if err != nil {
			return err
		}
		last.Store(at.UnixNano())
	}
}
