package bundle

import (
	"errors"
	"io/fs"
	"os"
	"path"

	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

const (
	// PolicyFolder is where an app has its policies, beside its manifest.
	PolicyFolder = "policies"
	// maxPolicyFiles and maxPolicyBytes bound what is read; the server has the same bounds.
	maxPolicyFiles = 1000
	maxPolicyBytes = 1 << 20
)

// Policies reads the files of policies and perimeters in a folder, by their names in it. A folder that is not there is an error.
func Policies(dir string) (map[string]string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, problem.New(problem.NotFound, "bundle.no_policies", "the folder %s cannot be opened", dir).
			WithHint("name the folder that has files NAME.cedar in it").WithCause(err)
	}
	defer func() { _ = root.Close() }() // it was only read from
	return policiesIn(root, ".")
}

// policiesIn reads the files of policies in a folder below root; none when there is no such folder.
func policiesIn(root *os.Root, dir string) (map[string]string, error) {
	var names []string
	for _, pattern := range []string{"*.cedar", "*" + manifest.PerimeterFile} {
		found, err := fs.Glob(root.FS(), path.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		names = append(names, found...)
	}
	var faults []problem.Fault
	files, total := map[string]string{}, 0
	for _, name := range names {
		text, err := read(root, name, maxPolicyBytes)
		if err != nil {
			faults = append(faults, problem.Fault{File: name, Detail: reason(err)})
			continue
		}
		total += len(text)
		files[name] = string(text)
	}
	if len(names) > maxPolicyFiles || total > maxPolicyBytes {
		faults = append(faults, problem.Fault{File: dir, Detail: "there are more than 1,000 files of policies, or more than 1 MiB of them"})
	}
	if len(faults) > 0 {
		return nil, invalid(faults)
	}
	return files, nil
}

// AppPolicies reads the policies of the app in a folder. There is nothing to apply when it has no folder for them: then ok
// is false.
func AppPolicies(dir string) (files map[string]string, ok bool, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = root.Close() }() // it was only read from
	if info, err := root.Stat(PolicyFolder); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil, false, nil
	}
	files, err = policiesIn(root, PolicyFolder)
	return files, err == nil, err
}
