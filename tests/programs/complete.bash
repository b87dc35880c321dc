# `bash complete.bash SCRIPT WORD …`: sources a completion script, and prints what the last WORD of
# the line may go on with, as a terminal would ask for it: `=` ends a word.
source "$1"
shift
COMP_LINE="$*"
COMP_POINT=${#COMP_LINE}
COMP_TYPE=9
read -r -a COMP_WORDS <<< "${COMP_LINE//=/ = }"
[[ $COMP_LINE == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
compopt() { :; }
_python_argcomplete "${COMP_WORDS[0]}" "" ""
printf '%s\n' "${COMPREPLY[@]}"
