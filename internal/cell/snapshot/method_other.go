//go:build !linux || !(amd64 || arm64)

package snapshot

func openTracked() (engine, error) { return nil, ErrUnsupported }

func openCopyOnWrite() (engine, error) { return nil, ErrUnsupported }
