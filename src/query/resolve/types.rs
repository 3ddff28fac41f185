//! Types where they are known, and whether a value of a type fits a parameter.
//!
//! In: compiled expressions, shapes of functions. Out: a type, or nothing when it differs from event to event.
//! Invariant: a refusal is certain: the same value would fail for every row. Not here: converting (`udf`, `builtins`).

use super::binder::Binder;
use crate::query::ast::BinaryOp;
use crate::query::catalog::{FunctionKind, Shape, folded};
use crate::query::plan::Expr;
use crate::value::Type;

impl Binder<'_> {
    /// The type of every value that is not NULL, if it is known.
    pub(super) fn type_of(&self, expr: &Expr) -> Option<Type> {
        match expr {
            Expr::Const(value) => value.kind(),
            Expr::Slot(id) => self.columns.get(*id)?.ty,
            Expr::Time | Expr::Arrival => Some(Type::DateTime),
            Expr::Path(..) | Expr::Substream => None,
            Expr::Record(_) | Expr::Spread(..) => Some(Type::Record),
            Expr::Not(_) | Expr::And(..) | Expr::Or(..) => Some(Type::Bit),
            Expr::IsNull { .. } | Expr::Between { .. } | Expr::In { .. } | Expr::Like { .. } => Some(Type::Bit),
            Expr::Try(e) => self.type_of(e),
            Expr::Negate(e, _) => self.type_of(e).filter(|ty| matches!(ty, Type::BigInt | Type::Float)),
            Expr::BitNot(e, _) => self.type_of(e).filter(|ty| matches!(ty, Type::BigInt | Type::Bit)),
            Expr::Binary(op, a, b, _) => self.type_of_binary(*op, a, b),
            Expr::Case { branches, otherwise } => {
                let ty = self.type_of(otherwise)?;
                branches.iter().all(|(_, then)| self.type_of(then) == Some(ty)).then_some(ty)
            }
            Expr::Cast { ty, .. } => Some(*ty),
            Expr::Builtin { function, .. } => function.returns,
            Expr::Udf { index, .. } => self.type_of_call(*index),
        }
    }

    fn type_of_binary(&self, op: BinaryOp, a: &Expr, b: &Expr) -> Option<Type> {
        use BinaryOp::{Add, BitAnd, BitOr, BitXor, Div, Mod, Mul, Sub};
        if !matches!(op, Add | Sub | Mul | Div | Mod | BitAnd | BitOr | BitXor) {
            return Some(Type::Bit);
        }
        match (self.type_of(a)?, self.type_of(b)?) {
            (Type::BigInt, Type::BigInt) => Some(Type::BigInt),
            (Type::BigInt | Type::Float, Type::BigInt | Type::Float) if !matches!(op, BitAnd | BitOr | BitXor) => {
                Some(Type::Float)
            }
            (Type::Text, Type::Text) if op == Add => Some(Type::Text),
            _ => None,
        }
    }

    fn type_of_call(&self, wanted: usize) -> Option<Type> {
        self.catalog.functions.iter().find_map(|f| match &f.kind {
            FunctionKind::Local { index, signature, .. } if *index == wanted => signature.result.kind(),
            _ => None,
        })
    }

    /// Whether a value of this expression could ever convert to the shape; `Err` says what cannot.
    pub(super) fn fits(&self, expr: &Expr, shape: &Shape) -> Result<(), String> {
        if let (Expr::Record(fields), Shape::Record(wanted)) = (expr, bare(shape)) {
            for (name, shape) in wanted {
                let field = fields.iter().find(|(n, _)| folded(n) == folded(name));
                match field {
                    Some((_, value)) => self.fits(value, shape).map_err(|e| format!("field `{name}`: {e}"))?,
                    None if matches!(shape, Shape::Option(_)) => {}
                    None => return Err(format!("the record has no field `{name}`")),
                }
            }
            return Ok(());
        }
        match self.type_of(expr) {
            Some(ty) if !takes(shape, ty) => Err(format!("{} never becomes {shape}", with_article(ty))),
            _ => Ok(()),
        }
    }
}

fn with_article(ty: Type) -> String {
    if matches!(ty, Type::Array | Type::Text) { format!("an {ty}") } else { format!("a {ty}") }
}

fn bare(shape: &Shape) -> &Shape {
    match shape {
        Shape::Option(inner) => bare(inner),
        shape => shape,
    }
}

/// Whether some value of the type converts to the shape. Source: the type table of the design's section on functions.
fn takes(shape: &Shape, ty: Type) -> bool {
    match shape {
        Shape::Any => true,
        Shape::Bit => ty == Type::Bit,
        Shape::Integer { .. } | Shape::Float => matches!(ty, Type::BigInt | Type::Float),
        Shape::Text | Shape::Enum(_) => !matches!(ty, Type::Record | Type::Array),
        Shape::DateTime => matches!(ty, Type::DateTime | Type::Text),
        Shape::List(_) | Shape::Tuple(_) => ty == Type::Array,
        Shape::Record(_) | Shape::Flags(_) => ty == Type::Record,
        Shape::Variant(_) => matches!(ty, Type::Record | Type::Text),
        Shape::Option(inner) => takes(inner, ty),
        Shape::Unit => false,
    }
}
