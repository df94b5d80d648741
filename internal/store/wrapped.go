package store

import "context"

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

// Destroy removes a wrapped key for good: its bytes on disk are overwritten, and that is synced, before it returns. That there is none
// is no error. Copies that others have made of the files, such as backups, are out of its reach.
func (w *WrappedKeys) Destroy(ctx context.Context, name string) error {
	if err := checkKey(name); err != nil {
		return err
	}
	return w.engine.shredState(ctx, keysPrefix+escape(name))
}
