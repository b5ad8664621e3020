package main

import (
	"bytes"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	module  = "github.com/bifrost-proxy/bifrost/"
	repo    = "../.."
	maxLine = 400
)

// edges says which folders may import which of ours. Tests may import the test suites besides.
var edges = map[string][]string{
	"cmd/bifrost":           {"config", "proxy", "authflow", "authflow/console", "tokenstore"},
	"cmd/bifrost-demo":      {"config", "proxy", "authflow", "authflow/console", "authflow/authflowtest", "tokenstore"},
	"cmd/bifrost/e2e":       {},
	"config":                {},
	"proxy":                 {"authflow", "tokenstore"},
	"authflow":              {"tokenstore"},
	"authflow/console":      {"authflow", "tokenstore"},
	"authflow/authflowtest": {},
	"tokenstore":            {},
	"tokenstore/storetest":  {"tokenstore"},
}

// testSuites may be imported by any test.
var testSuites = []string{"authflow/authflowtest", "tokenstore/storetest"}

// banned are names of folders that say nothing of what a package is for.
var banned = []string{
	"internal", "pkg", "server", "middleware", "metrics", "model", "models", "util", "utils", "common", "helpers", "types", "x",
}

// machinePath finds paths of one machine, which mean nothing on another.
var machinePath = regexp.MustCompile(`(?:^|[\s"'=(` + "`" + `])/(?:home|root|Users|work|tmp)/[A-Za-z0-9_.-]`)

// sourceFile is one Go file of the module.
type sourceFile struct {
	path, folder string
	text         []byte
	tree         *ast.File
}

func (f sourceFile) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// sources parses every Go file of the module, nested modules and hidden folders left out.
func sources(t *testing.T) []sourceFile {
	t.Helper()
	var files []sourceFile
	err := filepath.WalkDir(repo, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(repo, name)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return skip(name, rel)
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		tree, err := parser.ParseFile(token.NewFileSet(), rel, text, parser.ParseComments)
		files = append(files, sourceFile{rel, filepath.ToSlash(filepath.Dir(rel)), text, tree})
		return err
	})
	require.NoError(t, err)
	require.Greater(t, len(files), 50, "the walk must find the module")
	return files
}

// skip leaves out what is not this module's source.
func skip(name, rel string) error {
	base := filepath.Base(rel)
	if rel != "." && (strings.HasPrefix(base, ".") || base == "node_modules" || base == "testdata") {
		return fs.SkipDir
	}
	if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil && rel != "." {
		return fs.SkipDir
	}
	return nil
}

func TestImportsGoOneWay(t *testing.T) {
	for _, f := range sources(t) {
		allowed, known := edges[f.folder]
		require.True(t, known, "%s: the folder %s is not one of the layout's", f.path, f.folder)
		allowed = slices.Concat(allowed, []string{f.folder}) // an external test imports its own package
		if f.isTest() {
			allowed = slices.Concat(allowed, testSuites)
		}
		if strings.HasPrefix(f.folder, "cmd/") && f.isTest() {
			allowed = slices.Concat(allowed, slices.Collect(maps.Keys(edges)))
		}
		for _, imported := range f.tree.Imports {
			ours, ok := strings.CutPrefix(strings.Trim(imported.Path.Value, `"`), module)
			if ok {
				require.Contains(t, allowed, ours, "%s imports %s", f.path, ours)
			}
		}
	}
}

func TestFilesStayShort(t *testing.T) {
	for _, f := range sources(t) {
		lines := bytes.Count(f.text, []byte("\n"))
		require.LessOrEqual(t, lines, maxLine, "%s: split it by concept", f.path)
	}
}

func TestFoldersSayWhatTheyAreFor(t *testing.T) {
	for _, f := range sources(t) {
		for name := range strings.SplitSeq(f.folder, "/") {
			require.NotContains(t, banned, name, f.path)
		}
	}
}

func TestPackagesHaveOneDoc(t *testing.T) {
	docs, withCode := map[string][]string{}, map[string]bool{}
	for _, f := range sources(t) {
		if f.isTest() {
			continue
		}
		withCode[f.folder] = true
		if f.tree.Doc.Text() != "" {
			docs[f.folder] = append(docs[f.folder], f.path)
		}
	}
	for folder := range withCode {
		require.Len(t, docs[folder], 1, "package comments of %s: %v", folder, docs[folder])
	}
}

// TestExportedNamesAreDocumented asks go/doc, so that a group's comment counts for a group of constants or variables.
func TestExportedNamesAreDocumented(t *testing.T) {
	packages := map[string][]*ast.File{}
	fset := token.NewFileSet()
	for _, f := range sources(t) {
		if f.isTest() || f.tree.Name.Name == "main" {
			continue
		}
		tree, err := parser.ParseFile(fset, f.path, f.text, parser.ParseComments)
		require.NoError(t, err)
		packages[f.folder] = append(packages[f.folder], tree)
	}
	for folder, trees := range packages {
		pkg, err := doc.NewFromFiles(fset, trees, module+folder)
		require.NoError(t, err)
		for _, name := range undocumented(pkg) {
			t.Errorf("%s.%s has no doc comment", path.Base(folder), name)
		}
	}
}

// undocumented returns the exported names without a comment.
func undocumented(pkg *doc.Package) []string {
	var names []string
	check := func(name, comment string) {
		if comment == "" && ast.IsExported(name[strings.LastIndexByte(name, '.')+1:]) {
			names = append(names, name)
		}
	}
	values := func(list []*doc.Value) {
		for _, v := range list {
			if v.Doc == "" {
				for _, spec := range v.Decl.Specs {
					spec := spec.(*ast.ValueSpec)
					for _, name := range spec.Names {
						check(name.Name, spec.Doc.Text()+spec.Comment.Text())
					}
				}
			}
		}
	}
	values(pkg.Consts)
	values(pkg.Vars)
	for _, f := range pkg.Funcs {
		check(f.Name, f.Doc)
	}
	selfEvident := []string{"Error", "Unwrap", "Is"} // of errors
	for _, typ := range pkg.Types {
		check(typ.Name, typ.Doc)
		values(typ.Consts)
		values(typ.Vars)
		for _, f := range slices.Concat(typ.Funcs, typ.Methods) {
			if !slices.Contains(selfEvident, f.Name) {
				check(typ.Name+"."+f.Name, f.Doc)
			}
		}
	}
	return names
}

func TestNoPathOfOneMachine(t *testing.T) {
	for _, f := range sources(t) {
		if found := machinePath.Find(f.text); found != nil && f.path != "cmd/bifrost/layout_test.go" {
			t.Errorf("%s: %q", f.path, found)
		}
	}
}
