package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long a folder must be quiet before it is read: an editor writes a file in several
	// steps.
	settle = 40 * time.Millisecond
	// maxSettle is how long it may at most be unquiet: something may write without end.
	maxSettle = 400 * time.Millisecond
	// askAgain is how often an app is tried again that waits for something else than its files.
	askAgain = time.Second
)

// watch calls changed whenever something in the folder was saved and the folder came to rest, and again and again
// while the app waits for something else.
func (s *session) watch(ctx context.Context, changed func()) {
	again := time.NewTicker(askAgain)
	defer again.Stop()
	var since time.Time // of the first change that changed was not called for
	quiet := time.NewTimer(settle)
	quiet.Stop()
	later := func() {
		now := time.Now()
		if since.IsZero() {
			since = now
		}
		quiet.Reset(min(settle, max(0, maxSettle-now.Sub(since))))
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-quiet.C:
			since = time.Time{}
			changed()
		case <-again.C:
			if s.awaits != "" {
				changed()
			}
		case e, ok := <-s.watcher.Events:
			if !ok {
				return
			}
			if s.relevant(e) {
				later()
			}
		case err, ok := <-s.watcher.Errors:
			if !ok {
				return
			}
			// Usually the queue overflowed: which folders are new is not known any more.
			s.app.say("watch the app's folder: %v", err)
			s.add(s.dir)
			later()
		}
	}
}

// relevant reports whether a change may be one of the app, and watches new folders.
func (s *session) relevant(e fsnotify.Event) bool {
	if ignored(s.dir, e.Name) || e.Op == fsnotify.Chmod {
		return false
	}
	if e.Has(fsnotify.Create) {
		if st, err := os.Stat(e.Name); err == nil && st.IsDir() {
			s.add(e.Name)
		}
	}
	return true
}

func (s *session) add(folder string) {
	if err := addAll(s.watcher, s.dir, folder); err != nil {
		s.app.say("watch %s: %v", clean(folder), err)
	}
}

func newWatcher(dir string) (*fsnotify.Watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch the app's folder: %w", err)
	}
	if err := addAll(w, dir, dir); err != nil {
		return nil, errors.Join(fmt.Errorf("watch the app's folder: %w", err), w.Close())
	}
	return w, nil
}

// addAll watches a folder and those in it. One that is gone again is nothing to watch.
func addAll(w *fsnotify.Watcher, dir, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !d.IsDir() {
			return nil
		}
		if path != dir && ignored(dir, path) {
			return fs.SkipDir
		}
		if err := w.Add(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

// ignored reports whether a path is no part of the app: hidden, of a package manager, or an editor's.
func ignored(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	if err != nil {
		return true
	}
	for _, part := range strings.Split(filepath.ToSlash(rel), "/") {
		switch {
		case part == ".":
		case strings.HasPrefix(part, "."), part == "node_modules", strings.HasSuffix(part, "~"), part == vimProbe:
			return true
		}
	}
	return false
}

// vimProbe is a file that vim makes to see whether it can.
const vimProbe = "4913"
