// Command guards takes each guard of guards.yaml out of the code, one at a time, and runs the tests that should notice. It
// prints which test fails without which guard, and ends with 1 if one is missed by no test.
//
// With -check it runs no test: it only makes sure that each guard is still where the list says.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"gopkg.in/yaml.v3"
)

const (
	list    = ".ci/guards/guards.yaml"
	patient = 4 * time.Minute // for the tests of one guard: without it they may hang
	atOnce  = 2
)

// guard is a small piece of code that prevents a fault, and how the code looks without it.
type guard struct {
	Guard   string // what it prevents
	File    string
	Find    string   // stands in File exactly once
	Without string   // what stands there when the guard is gone
	Test    []string // arguments of go test, such as a package and -run
}

func main() {
	check := flag.Bool("check", false, "only look whether every guard is where the list says")
	only := flag.String("only", "", "the guards whose description or file matches this `regexp`")
	flag.Parse()
	if err := run(*check, *only); err != nil {
		fmt.Fprintln(os.Stderr, "guards:", err)
		os.Exit(1)
	}
}

func run(check bool, only string) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	guards, err := load(list)
	if err != nil {
		return err
	}
	guards = slices.DeleteFunc(guards, func(g guard) bool { return !wanted.MatchString(g.Guard + " " + g.File) })
	if err := placed(guards); err != nil || check {
		return err
	}
	scratch, err := os.MkdirTemp("", "guards")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	missed := tryAll(guards, scratch)
	fmt.Printf("%d guards, %d missed by no test\n", len(guards), missed)
	if missed > 0 {
		return errors.New("a guard that no test misses is no guard")
	}
	return nil
}

func load(path string) ([]guard, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	dec := yaml.NewDecoder(f)
	dec.KnownFields(true)
	var guards []guard
	if err := dec.Decode(&guards); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return guards, nil
}

// placed returns an error for each guard that is not in its file exactly once.
func placed(guards []guard) error {
	var errs []error
	for _, g := range guards {
		source, err := os.ReadFile(g.File)
		if n := bytes.Count(source, []byte(g.Find)); err == nil && n != 1 {
			err = fmt.Errorf("%s: found %d times in %s: bring the list up to date", g.Guard, n, g.File)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// tryAll tries a few guards at a time, prints the outcomes in the list's order, and returns how many are missed by no test.
func tryAll(guards []guard, scratch string) (missed int) {
	outcomes := make([]chan outcome, len(guards))
	for i := range outcomes {
		outcomes[i] = make(chan outcome, 1)
	}
	next := make(chan int)
	var all sync.WaitGroup
	for n := range atOnce {
		all.Go(func() {
			for i := range next {
				outcomes[i] <- try(guards[i], filepath.Join(scratch, fmt.Sprint(n)))
			}
		})
	}
	all.Go(func() {
		defer close(next)
		for i := range guards {
			next <- i
		}
	})
	for i, g := range guards {
		o := <-outcomes[i]
		if o.missing {
			missed++
		}
		fmt.Printf("%s\n\twithout: %s (%s)\n", o.text, g.Guard, g.File)
	}
	all.Wait()
	return missed
}

// outcome is what the tests say to a missing guard.
type outcome struct {
	text    string
	missing bool // no test has noticed
}

var failure = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)

// try runs the tests without the guard.
func try(g guard, scratch string) outcome {
	overlay, err := remove(g, scratch)
	if err != nil {
		return outcome{"NOT TRIED: " + err.Error(), true}
	}
	ctx, stop := context.WithTimeout(context.Background(), patient)
	defer stop()
	args := append([]string{"test", "-count=1", "-failfast", "-vet=off", "-overlay", overlay}, g.Test...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	failed := failure.FindAllSubmatch(out, -1)
	switch {
	case err == nil:
		return outcome{"MISSED BY NO TEST", true}
	case len(failed) > 0:
		return outcome{string(failed[len(failed)-1][1]) + " fails", false} // the innermost
	case ctx.Err() != nil:
		return outcome{"a test hangs", false}
	case bytes.Contains(out, []byte("panic:")):
		return outcome{"a test panics", false}
	}
	return outcome{"NOT TRIED:\n" + string(out), true} // it does not build: the list is wrong
}

// remove writes the file without the guard, and an overlay for the go command that puts it in the file's place.
func remove(g guard, scratch string) (overlay string, err error) {
	source, err := os.ReadFile(g.File)
	if err != nil {
		return "", err
	}
	original, err := filepath.Abs(g.File)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return "", err
	}
	mutant, overlay := filepath.Join(scratch, "mutant.go"), filepath.Join(scratch, "overlay.json")
	replaced, err := json.Marshal(map[string]map[string]string{"Replace": {original: mutant}})
	if err != nil {
		return "", err
	}
	return overlay, errors.Join(
		os.WriteFile(mutant, bytes.Replace(source, []byte(g.Find), []byte(g.Without), 1), 0o600),
		os.WriteFile(overlay, replaced, 0o600),
	)
}
