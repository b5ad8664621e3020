package main

import (
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle lets an editor finish its renames, and several files of one change arrive together.
	settle = 200 * time.Millisecond
	// relook finds a change on a file system that tells of none.
	relook = 30 * time.Second
)

// watch tells when the configuration's files may have changed, however they are replaced. It watches the directories: a watch
// on a file dies at the first rename or symlink swap.
type watch struct {
	changed chan struct{} // never closed; one value stands for any number of changes

	log     *slog.Logger
	ignores func(name string) bool // files that change all the time
	fs      *fsnotify.Watcher
	running sync.WaitGroup
}

// newWatch returns a watch that close ends. It watches nothing before follow.
func newWatch(ignores func(name string) bool, log *slog.Logger) (*watch, error) {
	fs, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	w := &watch{changed: make(chan struct{}, 1), log: log, ignores: ignores, fs: fs}
	w.running.Go(w.listen)
	return w, nil
}

func (w *watch) close() {
	_ = w.fs.Close() // ends listen
	w.running.Wait()
}

// follow watches the directories of files, and of what they are links to, instead of those watched before. Only the goroutine
// that reloads may call it.
func (w *watch) follow(files []string) {
	var dirs []string
	for _, file := range files {
		dirs = append(dirs, filepath.Dir(file))
		if target, err := filepath.EvalSymlinks(file); err == nil {
			dirs = append(dirs, filepath.Dir(target))
		}
	}
	for _, dir := range w.fs.WatchList() {
		if !slices.Contains(dirs, dir) {
			_ = w.fs.Remove(dir) // it may be gone by itself
		}
	}
	for _, dir := range dirs {
		if err := w.fs.Add(dir); err != nil {
			w.log.Warn("a directory cannot be watched: its changes are seen later", "directory", dir, "error", err)
		}
	}
}

// listen turns events into changed, until close.
func (w *watch) listen() {
	timer := time.NewTimer(relook)
	defer timer.Stop()
	for {
		select {
		case event, ok := <-w.fs.Events:
			if !ok {
				return
			}
			if w.concerns(event) {
				timer.Reset(settle)
			}
		case err, ok := <-w.fs.Errors:
			if !ok {
				return
			}
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				timer.Reset(settle)
				continue
			}
			w.log.Warn("watching the configuration fails: changes are seen later", "error", err)
		case <-timer.C:
			select {
			case w.changed <- struct{}{}:
			default: // the last one is still to be taken
			}
			timer.Reset(relook)
		}
	}
}

func (w *watch) concerns(event fsnotify.Event) bool {
	return event.Op != fsnotify.Chmod && !w.ignores(filepath.Base(event.Name))
}
