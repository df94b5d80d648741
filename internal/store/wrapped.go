package store

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// WrappedKeys keeps wrapped keys, as keyring.New asks for. They are not sealed again: they are
// encrypted, and the keys to do it are what is kept here.
type WrappedKeys struct {
	engine *Engine
}

// WrappedKeys returns the place of the engine's wrapped keys.
func (e *Engine) WrappedKeys() *WrappedKeys { return &WrappedKeys{engine: e} }

// Get returns the wrapped key of that name, or ErrNotFound.
func (w *WrappedKeys) Get(ctx context.Context, name string) ([]byte, error) {
	if err := checkKey(name); err != nil {
		return nil, err
	}
	m, err := w.engine.getState(ctx, keysPrefix+escape(name))
	return m.data, err
}

// Put stores a wrapped key and returns when it is on disk. It may use the whole reserve of free space.
func (w *WrappedKeys) Put(ctx context.Context, name string, value []byte) error {
	if err := checkKey(name); err != nil {
		return err
	}
	const mayReplace = true
	return w.engine.putState(ctx, keysPrefix+escape(name), value, mayReplace)
}

// Names returns the names of the wrapped keys that begin with prefix, which ends where a part of a name does: in a slash.
func (w *WrappedKeys) Names(ctx context.Context, prefix string) ([]string, error) {
	var names []string
	err := w.engine.do(ctx, func(ctx context.Context, l *link) error {
		names = nil
		if err := l.barrier(ctx, keysPrefix+"-"); err != nil { // an earlier write may still be under way
			return wrap("list", "wrapped keys", err)
		}
		stream, err := l.js.Stream(ctx, stateStream)
		if err != nil {
			return wrap("open stream", stateStream, err)
		}
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(keysPrefix+"*"))
		if err != nil {
			return wrap("list", "wrapped keys", err)
		}
		for subject := range info.State.Subjects {
			name, err := unescape(strings.TrimPrefix(subject, keysPrefix))
			if err != nil {
				return wrap("read the name of", "a wrapped key", err)
			}
			if strings.HasPrefix(name, prefix) {
				names = append(names, name)
			}
		}
		return nil
	})
	return names, err
}

// Delete destroys a wrapped key: its bytes are overwritten where they are on disk, and it is gone after a power cut. That
// it is not there is no error. Values it replaced earlier are removed, but not overwritten.
func (w *WrappedKeys) Delete(ctx context.Context, name string) error {
	if err := checkKey(name); err != nil {
		return err
	}
	subject := keysPrefix + escape(name)
	last, err := w.engine.getState(ctx, subject)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	err = w.engine.do(ctx, func(ctx context.Context, l *link) error {
		stream, err := l.js.Stream(ctx, stateStream)
		if err != nil {
			return wrap("open stream", stateStream, err)
		}
		err = stream.SecureDeleteMsg(ctx, last.seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil // a repetition after a restart of the store
		}
		if err != nil {
			return wrap("overwrite", "a wrapped key", err)
		}
		return syncFiles(filepath.Join(l.server.StoreDir(), "$G", "streams", stateStream, "msgs"))
	})
	if err != nil {
		return err
	}
	return w.engine.purgeState(ctx, subject)
}
