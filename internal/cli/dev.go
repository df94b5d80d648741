package cli

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/client"
	"sallyport/internal/bundle"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
	"sallyport/internal/server"
)

type devFlags struct {
	listen, dataDir, readyFile string
	doubles                    doubleFlags
}

func (a *app) devCommand() *cobra.Command {
	var f devFlags
	c := &cobra.Command{
		Use: "dev [DIR]", Short: "Run a server for the app in a folder, and follow its changes",
		Long: `Run a server for the app in DIR (default: this folder). A saved file is live for the next event. Events, tokens and dead
letters are kept in .sallyport between runs. Other commands find the server by themselves when they run in the folder.

With --capture nothing is sent, written, called or revealed by grants: each such use is checked as ever, shown, and answered by --fixtures, or as if it
had succeeded where that is clear, or with the error grant.not_answered. What only reads (statements that select, kv get) is carried out.
--record writes what grants really answer to NAME.fixtures.toml, for each function, without secrets.`,
		Example: `  sallyport dev
  sallyport dev ./webshop --listen 127.0.0.1:8700
  sallyport dev --capture
  sallyport dev --capture=payments --fixtures confirm.fixtures.toml
  sallyport dev --record`,
		Args: atMostOne("one folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.dev(cmd.Context(), folder(args), f)
		},
	}
	c.Flags().StringVar(&f.listen, "listen", "127.0.0.1:8600", "`address` to listen on, host:port; port 0 chooses one")
	c.Flags().StringVar(&f.dataDir, "data-dir", "", "`folder` for the server's data (default .sallyport/data in the app's folder)")
	c.Flags().StringVar(&f.readyFile, "ready-file", "", "`file` to write once the app was applied for the first time")
	f.doubles.flags(c.Flags())
	return c
}

// dev runs a server and a session with it, until ctx ends.
func (a *app) dev(ctx context.Context, dir string, f devFlags) error {
	if _, err := os.Stat(filepath.Join(dir, bundle.ManifestName)); errors.Is(err, fs.ErrNotExist) {
		return problem.New(problem.NotFound, "bundle.no_app", "%s has no %s", dir, bundle.ManifestName).
			WithHint("go to the app's folder, or make one with `sallyport init`")
	}
	stand, err := a.devDoubles(dir, &f.doubles)
	if err != nil {
		return err
	}
	if stand != nil {
		if b, err := loadApp(dir); err == nil { // its faults are told once the server is there
			if err := f.doubles.check(b.app); err != nil {
				return err
			}
		}
	}
	state, err := stateFolder(dir)
	if err != nil {
		return err
	}
	settings := manifest.DefaultServer()
	settings.Listen, settings.Log.Level = f.listen, "warn"
	settings.Cells.SecondWall = manifest.WallOff // a start is quicker, and the code is the developer's own
	if settings.DataDir = f.dataDir; f.dataDir == "" {
		settings.DataDir = filepath.Join(state, "data")
	}
	watcher, err := newWatcher(dir)
	if err != nil {
		return err
	}
	defer func() { _ = watcher.Close() }() // it only watched
	s := &session{app: a, dir: dir, doubles: &f.doubles, watcher: watcher, readyFiles: []string{filepath.Join(state, readyName)}, moved: make(chan struct{}, 1)}
	if f.readyFile != "" {
		s.readyFiles = append(s.readyFiles, f.readyFile)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var background sync.WaitGroup
	var failed error // of the session; read after background ended
	err = server.Run(ctx, server.Config{
		Settings: settings, Mode: server.ModeDev, Version: a.env.Version, Log: a.env.Stderr, Doubles: stand,
		Moved: func() {
			select {
			case s.moved <- struct{}{}:
			default: // it is said already
			}
		},
		OnReady: func(r api.Ready) {
			background.Go(func() {
				defer stop()
				failed = s.run(ctx, r)
			})
		},
	})
	stop()
	background.Wait()
	if err = errors.Join(err, failed); err == nil {
		a.say("stopped; events, tokens and keys are kept in %s", clean(settings.DataDir))
	}
	return err
}

// stateFolder makes the folder where dev keeps keys, tokens and events, and sees that git never takes
// it up.
func stateFolder(dir string) (string, error) {
	state := filepath.Join(dir, devDir)
	if err := os.MkdirAll(state, 0o700); err != nil {
		return "", fmt.Errorf("make the folder for dev's state: %w", err)
	}
	ignore := filepath.Join(state, ".gitignore")
	if _, err := os.Stat(ignore); !errors.Is(err, fs.ErrNotExist) {
		return state, err
	}
	return state, writePrivate(ignore, []byte("# Keys and tokens are in here.\n*\n"))
}

// session is what dev does beside the server: it keeps the app applied and tells what happens.
type session struct {
	app        *app
	dir        string
	doubles    *doubleFlags
	watcher    *fsnotify.Watcher
	readyFiles []string
	moved      chan struct{} // holds a value when something may have become of an event since dev asked last

	client    *client.Client
	began     time.Time
	active    bool        // some revision of the app is, as far as is known
	following atomic.Bool // the function logs are being followed
	// last is the digest of what was applied last, or of the fault that was shown.
	last [sha256.Size]byte
	// awaits is what the app waits for that is none of its files, as it was shown; empty when there is nothing.
	awaits string
}

// run applies the app, leaves word of the server, and follows changes until ctx ends.
func (s *session) run(ctx context.Context, r api.Ready) (err error) {
	s.client, err = client.New(client.Config{Server: r.URL, CAFile: r.CAFile, TokenFile: r.TokenFile, Namespace: s.app.namespace()})
	if err != nil {
		return err
	}
	defer s.client.Close()
	s.began = time.Now()
	fmt.Fprintf(s.app.env.Stdout, "sallyport is ready at %s\n  CA     %s\n  token  %s\n", r.URL, r.CAFile, r.TokenFile)
	var background sync.WaitGroup
	defer background.Wait()
	background.Go(func() { s.tellOutcomes(ctx) })
	if list, err := s.client.Functions(ctx); err != nil || len(list.Functions) > 0 {
		s.active = true // a run before left it
	}
	s.apply(ctx, &background)
	if err := s.announce(r); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.withdraw()) }()
	s.app.tellDoubles(s.doubles)
	s.app.say("functions run in this process; `sallyport server` runs them in worker processes of their own")
	s.app.say("watching %s; in another terminal, in this folder: sallyport send TYPE --data @FILE --wait", clean(s.dir))
	s.watch(ctx, func() { s.apply(ctx, &background) })
	return nil
}

// announce writes the files by which others find the server, once what they send meets the app.
func (s *session) announce(r api.Ready) error {
	text, err := json.Marshal(&r)
	if err != nil {
		return err
	}
	for _, file := range s.readyFiles {
		if err := writePrivate(file, text); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) withdraw() error {
	var errs []error
	for _, file := range s.readyFiles {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// apply bundles and applies the app and tells what changed, or what is wrong. An app with faults leaves
// the one before active. What is the same as the last time is not told again: this program's own output
// may go to a file in the folder.
func (s *session) apply(ctx context.Context, background *sync.WaitGroup) {
	began := time.Now()
	if err := refreshTypes(s.dir); err != nil {
		s.app.say("write the types for editors: %v", err)
	}
	b, err := loadApp(s.dir)
	if err == nil {
		err = s.doubles.check(b.app)
		if _, flags := errors.AsType[usageError](err); flags { // they were right for the app at the start
			err = problem.New(problem.Invalid, "cli.usage", "%v", err).WithHint("give the grant its name again, or start dev with other flags")
		}
	}
	var plan *api.Plan
	asked := false // the server
	if err == nil {
		text, merr := json.Marshal(b, json.Deterministic(true))
		if merr == nil && !s.isNew(text) {
			return
		}
		asked = true
		plan, err = b.apply(ctx, s.client, false)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.tellFault(err, asked)
	} else {
		s.awaits, s.active = "", true
		var text strings.Builder // one write: others write too
		writePlan(&text, plan)
		fmt.Fprintf(&text, "applied in %s\n", time.Since(began).Round(time.Millisecond))
		fmt.Fprint(s.app.env.Stdout, text.String())
		s.app.warnUnused(b)
		s.app.warnUnchecked(plan)
	}
	if s.following.CompareAndSwap(false, true) {
		background.Go(func() { s.followLogs(ctx) })
	}
}

// isNew reports whether text is another than the last time, and remembers it.
func (s *session) isNew(text []byte) bool {
	sum := sha256.Sum256(text)
	if sum == s.last {
		return false
	}
	s.last = sum
	return true
}

// tellFault prints what is wrong with the app. answered says that the sources were in order, and the
// server did not take them.
func (s *session) tellFault(err error, answered bool) {
	what, _ := classify(inFolder(err, s.dir))
	var text strings.Builder
	render(&text, what, s.app.colours())
	before := s.awaits
	s.awaits = ""
	if answered {
		p, ok := errors.AsType[*client.Problem](err)
		missing := ok && p.Code == codeSecretMissing
		if !ok || p.Status >= http.StatusInternalServerError || missing {
			s.last = [sha256.Size]byte{} // not the app's fault: the same app may be taken the next time
		}
		if missing {
			if s.awaits = text.String(); s.awaits == before {
				return
			}
		}
	} else if !s.isNew([]byte(text.String())) {
		return
	}
	fmt.Fprint(s.app.env.Stderr, text.String())
	stays := "no revision is active yet"
	if s.active {
		stays = "the revision before stays active"
	}
	if s.awaits != "" {
		s.app.say("%s; the app is applied once the secret is set", stays)
		return
	}
	s.app.say("%s; save a file to try again", stays)
}

// codeSecretMissing is the refusal of an app that names a secret which nobody has set yet.
const codeSecretMissing = "secret.missing"

// followLogs prints what functions log. It ends when the namespace is not there yet; the next apply
// that makes it starts it anew.
func (s *session) followLogs(ctx context.Context) {
	defer s.following.Store(false)
	o := client.LogOptions{Follow: true, Since: s.began.UTC().Format(time.RFC3339Nano), Limit: 1000}
	err := s.client.Logs(ctx, o, s.app.writeLine)
	if p, ok := errors.AsType[*client.Problem](err); ctx.Err() == nil && (!ok || p.Status != http.StatusNotFound) {
		s.app.say("the function logs are not followed any more: %v", err)
	}
}
