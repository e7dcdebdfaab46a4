"""The scripts that make a shell ask `satdifuser completion words LINE` at a press of TAB."""

from __future__ import annotations

BASH = r"""# Tab completion of satdifuser for bash: source it, or save it as
# ~/.local/share/bash-completion/completions/satdifuser
_satdifuser() {
    local line="${COMP_LINE:0:COMP_POINT}" word head=""
    COMPREPLY=()
    # bash takes what stands before a = for a word of its own
    case "$COMP_WORDBREAKS" in
        *=*) head="${line##*[[:space:]]}"; case "$head" in *=*) head="${head%"${head##*=}"}" ;; *) head="" ;; esac ;;
    esac
    while IFS= read -r word; do
        word="${word#"$head"}"
        case "$word" in *= | *.) ;; *) word="$word " ;; esac
        COMPREPLY+=("$word")
    done < <("${1/#\~/$HOME}" completion words "$line" 2>/dev/null)
}
complete -o nospace -o default -F _satdifuser satdifuser
"""

ZSH = r"""#compdef satdifuser
# Tab completion of satdifuser for zsh: save it as _satdifuser in a folder of $fpath, or source it after compinit.
_satdifuser() {
    local line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    local -a found open closed
    found=("${(@f)$(${(Q)words[1]} completion words "$line" 2>/dev/null)}")
    found=(${found:#})
    open=(${(M)found:#*[=.]})
    closed=(${found:#*[=.]})
    (( $#open )) && compadd -S '' -- $open
    (( $#closed )) && compadd -- $closed
    if (( ! $#found )); then
        compset -P '*='
        _files
    fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _satdifuser "$@"
else
    compdef _satdifuser satdifuser
fi
"""

FISH = r"""# Tab completion of satdifuser for fish: save it as ~/.config/fish/completions/satdifuser.fish
function __satdifuser_words
    set -l line (commandline --cut-at-cursor --current-process | string collect)
    set -l found (satdifuser completion words "$line" 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
        return
    end
    set -l word (commandline --cut-at-cursor --current-token)
    set -l name (string match --regex '^[^=]*=' -- $word)
    for path in (__fish_complete_path (string replace --regex '^[^=]*=' '' -- $word))
        printf '%s%s\n' "$name" $path
    end
end
complete --command satdifuser --no-files --arguments '(__satdifuser_words)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
