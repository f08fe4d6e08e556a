#!/usr/bin/env bash
# The paper's protocol on a NeRSemble capture: an avatar, several edits of it, and Table 1 of them. For a GPU, with real weights.
#
#   export FLAME_MODEL_PATH=$HOME/flame/flame2023_Open.pkl     # or its ZIP; FLAME_masks.pkl beside it
#   tools/measure/results_nersemble.sh --data export/UNION10_306_... --motion export/460_FREE_... --person man
#
# Held out are camera 8 (novel view) and the test sequence (self-reenactment), as VHAP's and GaussianAvatars' splits have it;
# --motion is another actor's sequence (cross-identity reenactment). The figures are in OUT/evaluation/report.md.
# Stop it whenever you like: the same command goes on where it was.
#
# Options:
#   --data DIR        the capture: a combined set (UNION10_...) as VHAP exports it
#   --motion PATH     another actor's sequence or motion file; without it there is no cross-identity reenactment
#   --person WORD     man or woman: for instructions and captions (default: person)
#   --out DIR         default: outputs/nersemble/NAME_OF_THE_CAPTURE
#   --edits FILE      the edits (default: results_nersemble.tsv beside this script)
#   --method NAME     that trains the avatar (default: rigged-splatfacto, 600,000 steps)
#   --steps N         steps of the avatar (default: 600000)
#   --editor MODEL    default: timbrooks/instruct-pix2pix
#   --clip MODEL      default: openai/clip-vit-large-patch14
#   --evaluate FLAGS  more flags for `edit3dgs evaluate`, in one word: "--identity my_faces:load --max-frames 300"
#   --avatar RUN      an avatar that is there already; none is trained
#   -- FLAGS          more flags for `ns-train edit3dgs`
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
data='' motion='' person=person out='' edits=$here/results_nersemble.tsv method=rigged-splatfacto steps=600000
editor=timbrooks/instruct-pix2pix clip=openai/clip-vit-large-patch14 evaluate='' avatar=''
more=()

fail() { echo "results_nersemble: $*" >&2; exit 2; }

while [ $# -gt 0 ]; do
    case $1 in
        --data|--motion|--person|--out|--edits|--method|--steps|--editor|--clip|--evaluate|--avatar)
            [ $# -gt 1 ] || fail "$1 wants a value."
            printf -v "${1#--}" '%s' "$2"; shift 2 ;;
        --) shift; more=("$@"); break ;;
        -h|--help) sed -n '2,/^set -euo/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
        *) fail "$1 is no option. See: $0 --help" ;;
    esac
done

# Everything that can be wrong is looked at before the first training.
[ -n "$data" ] || fail "--data is missing: a capture as VHAP exports it. See: $0 --help"
[ -d "$data" ] || fail "--data $data: no such folder."
[ -z "$motion" ] || [ -e "$motion" ] || fail "--motion $motion: no such file or folder."
[ -f "$edits" ] || fail "--edits $edits: no such file."
[[ $steps =~ ^[1-9][0-9]*$ ]] || fail "--steps $steps: expected a positive number."
case $person in man) him=him ;; woman) him=her ;; person) him=them ;; *) fail "--person $person: expected man, woman or person." ;; esac
for program in ns-train edit3dgs; do
    command -v "$program" >/dev/null || fail "$program is not on the PATH. Activate the environment: . .venv/bin/activate"
done
edit3dgs doctor --data "$data"
[ -n "$out" ] || out=outputs/nersemble/$(basename "$(realpath "$data")")
mkdir -p "$out"

# Step of the newest checkpoint of a run, or nothing.
newest() {
    [ -d "$1/nerfstudio_models" ] || return 0
    find "$1/nerfstudio_models" -name 'step-*.ckpt' | sed 's/.*step-0*\([0-9]\{1,\}\)\.ckpt/\1/' | sort -n | tail -n 1
}

# train METHOD NAME STEPS FLAGS...: a run in OUT/NAME/METHOD/run, from where it was; nothing if it is done.
train() {
    local method=$1 name=$2 total=$3; shift 3
    local run=$out/$name/$method/run resume=() limit=() reached
    [ ! -f "$run/.finished" ] || { echo "== $name: done before"; return; }
    reached=$(newest "$run")
    [ -z "$reached" ] || resume=(--load-dir "$run/nerfstudio_models")
    # ns-train counts steps from the one that it goes on at; an edit knows its own length.
    [ "$total" = own ] || limit=(--max-num-iterations $((total - ${reached:--1} - 1)))
    if [ "$total" = own ] || [ $((total - ${reached:--1} - 1)) -gt 0 ]; then
        echo "== $name"
        ns-train "$method" --output-dir "$out" --experiment-name "$name" --timestamp run --vis tensorboard \
            "${limit[@]}" "${resume[@]}" "$@" nersemble-data --data "$data"
    fi
    touch "$run/.finished"
}

if [ -z "$avatar" ]; then
    train "$method" avatar "$steps"
    avatar=$out/avatar/$method/run
fi

runs=() targets=() source=''
while IFS=$'\t' read -r name instruction before after || [ -n "${name:-}" ]; do
    case $name in ''|'#'*) continue ;; esac
    [ -n "${after:-}" ] || fail "$edits: the line of '$name' has fewer than four columns (separated by tabs)."
    instruction=${instruction//PERSON/$person}; instruction=${instruction//HIM/$him}
    before=${before//PERSON/$person}; after=${after//PERSON/$person}
    [ -z "$source" ] || [ "$source" = "$before" ] || fail "$edits: '$name' has another caption before; all edits start from one avatar."
    source=$before
    train edit3dgs "$name" own --prompt "$instruction" --pipeline.avatar "$avatar" --pipeline.editor.model "$editor" "${more[@]}" </dev/null
    runs+=("$out/$name/edit3dgs/run/config.yml"); targets+=("$after")
done < "$edits"
[ ${#runs[@]} -gt 0 ] || fail "$edits lists no edits."

driver=()
[ -z "$motion" ] || driver=(--motion "$motion")
read -ra measured <<< "$evaluate"
edit3dgs evaluate --overwrite --runs "${runs[@]}" --source-caption "$source" --target-caption "${targets[@]}" \
    --clip "$clip" "${driver[@]}" "${measured[@]}" --output "$out/evaluation"
