package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// getState returns the last message of a subject of the state stream, or ErrNotFound.
func (e *Engine) getState(ctx context.Context, subject string) (m message, err error) {
	err = e.read(ctx, func(ctx context.Context, l *link) (err error) {
		m, err = l.getOne(ctx, stateStream, directRequest{LastFor: subject})
		return err
	})
	return m, err
}

// putState stores the value of a subject. When it replaces one, that is purged after.
func (e *Engine) putState(ctx context.Context, subject string, value []byte, replaces bool) error {
	if _, err := e.publish(ctx, &nats.Msg{Subject: subject, Data: value}, stateLimit); err != nil || !replaces {
		return err
	}
	return e.do(ctx, func(ctx context.Context, l *link) error {
		return l.purgeSubject(ctx, stateStream, subject, jetstream.WithPurgeKeep(1))
	})
}

// purgeState removes a subject from the state stream, on disk too: the purge leaves synced tombstones,
// but a file that it empties is only unlinked, and comes back in a power cut before its folder is
// synced.
func (e *Engine) purgeState(ctx context.Context, subject string) error {
	return e.do(ctx, func(ctx context.Context, l *link) error {
		if err := l.purgeSubject(ctx, stateStream, subject); err != nil {
			return err
		}
		return syncDir(filepath.Join(l.server.StoreDir(), "$G", "streams", stateStream, "msgs"))
	})
}

func (l *link) purgeSubject(ctx context.Context, name, subject string, opts ...jetstream.StreamPurgeOpt) error {
	stream, err := l.js.Stream(ctx, name)
	if err != nil {
		return wrap("open stream", name, err)
	}
	return wrap("delete from", name, stream.Purge(ctx, append(opts, jetstream.WithPurgeSubject(subject))...))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// syncFiles syncs the files in a folder; one that is removed meanwhile needs it no more.
func syncFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := syncDir(filepath.Join(dir, entry.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
